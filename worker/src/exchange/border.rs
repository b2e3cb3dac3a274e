//! The exchange's messages to its own words and back. Whatever a message lacks is refused with the field's name.

use model::{Creation, SplitId};
use proto::{BadMessage, Protocols, v1};

use super::door::{Acked, Open, Reason, Said};
use v1::{from_partition::Message, refused_partition::Reason as WireReason};

impl From<&Open> for v1::OpenPartition {
    fn from(open: &Open) -> Self {
        Self {
            sink_id: open.sink.to_string(),
            partition: open.partition,
            partition_epoch: Some(open.partition_epoch.into()),
            creation_ms: open.split.creation().0,
            split: open.split.name().to_owned(),
            split_epoch: Some(open.split_epoch.into()),
            next: open.next,
            protocol_from: Protocols::OURS.from(),
            protocol_to: Protocols::OURS.to(),
        }
    }
}

impl TryFrom<v1::OpenPartition> for Open {
    type Error = BadMessage;
    fn try_from(open: v1::OpenPartition) -> Result<Self, BadMessage> {
        let lacks = |what: &str| BadMessage(format!("a stream to a partition without {what}"));
        if open.split.is_empty() {
            return Err(lacks("a split"));
        }
        Ok(Self {
            sink: open.sink_id.parse().map_err(|e| BadMessage(format!("a stream to a partition: {e}")))?,
            partition: open.partition,
            partition_epoch: open.partition_epoch.ok_or_else(|| lacks("the partition's epoch"))?.into(),
            split: SplitId::new(Creation(open.creation_ms), &open.split),
            split_epoch: open.split_epoch.ok_or_else(|| lacks("the split's epoch"))?.into(),
            next: open.next,
        })
    }
}

impl From<Said> for v1::FromPartition {
    fn from(said: Said) -> Self {
        let message = match said {
            Said::Accepted(window) => Message::Accepted(v1::AcceptedPartition { window }),
            Said::Window(bytes) => Message::Window(v1::Window { bytes }),
            Said::Acked(acked) => Message::Acked(v1::Acked {
                creation_ms: acked.split.creation().0,
                split: acked.split.name().to_owned(),
                split_epoch: Some(acked.split_epoch.into()),
                partition: acked.partition,
                below: acked.below,
                parts: acked.parts,
            }),
            Said::Refused(reason, error) => {
                let reason = match reason {
                    Reason::NotHere => WireReason::NotHere,
                    Reason::Older => WireReason::Older,
                    Reason::Gap => WireReason::Gap,
                };
                Message::Refused(v1::RefusedPartition { reason: reason.into(), error })
            }
            Said::Failed { error, kind } => Message::Failed(v1::RunFailed { error, kind }),
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<v1::FromPartition> for Said {
    type Error = BadMessage;
    fn try_from(message: v1::FromPartition) -> Result<Self, BadMessage> {
        let empty = || BadMessage("an empty message of a partition".to_owned());
        Ok(match message.message.ok_or_else(empty)? {
            Message::Accepted(accepted) => Self::Accepted(accepted.window),
            Message::Window(window) => Self::Window(window.bytes),
            Message::Acked(acked) => Self::Acked(Acked {
                split: SplitId::new(Creation(acked.creation_ms), &acked.split),
                split_epoch: acked.split_epoch.ok_or_else(empty)?.into(),
                partition: acked.partition,
                below: acked.below,
                parts: acked.parts,
            }),
            Message::Refused(refused) => {
                let reason = match refused.reason() {
                    WireReason::Older => Reason::Older,
                    WireReason::Gap => Reason::Gap,
                    WireReason::NotHere | WireReason::Unspecified => Reason::NotHere,
                };
                Self::Refused(reason, refused.error)
            }
            Message::Failed(failed) => Self::Failed { error: failed.error, kind: failed.kind },
        })
    }
}

#[cfg(test)]
mod tests {
    use model::{Epoch, ObjectId};

    use super::*;

    #[test]
    fn what_is_said_survives_the_wire() {
        let epoch = Epoch { generation: 1, revision: 7 };
        let split = SplitId::new(Creation(5), "shard-1");
        let all = [
            Said::Accepted(4096),
            Said::Window(9),
            Said::Acked(Acked {
                split: split.clone(),
                split_epoch: epoch,
                partition: 3,
                below: 10,
                parts: vec![12, 14],
            }),
            Said::Refused(Reason::NotHere, "a".to_owned()),
            Said::Refused(Reason::Older, "b".to_owned()),
            Said::Refused(Reason::Gap, "c".to_owned()),
            Said::Failed { error: "no".to_owned(), kind: "rejected".to_owned() },
        ];
        for said in all {
            assert_eq!(Said::try_from(v1::FromPartition::from(said.clone())).unwrap(), said);
        }
        assert!(Said::try_from(v1::FromPartition::default()).is_err());
        let open = Open {
            sink: ObjectId::from_parts(1, 2),
            partition: 3,
            partition_epoch: epoch,
            split,
            split_epoch: Epoch { generation: 1, revision: 9 },
            next: 4,
        };
        assert_eq!(Open::try_from(v1::OpenPartition::from(&open)).unwrap(), open);
        assert!(Open::try_from(v1::OpenPartition::default()).is_err());
    }
}
