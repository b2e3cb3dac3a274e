//! What is said when the service does not hold a position any more (docs/kinesis.md S8). Both readers come here, so that the
//! same loss has the same words.

use connector::{Error, ErrorKind, Gap};
use model::{SplitId, Timestamp};

use super::{
    client::{Begin, INVALID_ARGUMENT},
    place::Place,
};

/// How far the service's clock and that of the worker that wrote a position may be apart.
const CLOCKS_APART_MS: i64 = 300_000;

/// Whose position it is.
pub(crate) struct Whose<'a> {
    pub split: &'a SplitId,
    pub stream: &'a str,
    /// Since when the stream holds its records.
    pub horizon: Option<Timestamp>,
}

/// The service does not take the place: too new a moment is waited for, a number that is gone is replaced by the horizon. The
/// error that comes back only says "again".
pub(crate) fn refused(place: &mut Place, whose: &Whose, error: Error) -> (Error, Option<Gap>) {
    let Whose { split: shard, stream, horizon } = whose;
    let again = |text: String| Error::new(ErrorKind::Unavailable, text).code(INVALID_ARGUMENT);
    match &place.from {
        // Never evaluated anew: the moment was pinned when the source was created (docs/kinesis.md 3.1).
        Begin::At(at) => {
            (again(format!("stream `{stream}` does not take the start {at} yet: {error}")), None)
        }
        Begin::AtNumber(number) | Begin::AfterNumber(number) => {
            let text = format!(
                "shard `{shard}` of stream `{stream}` no longer holds sequence number {number}; reading goes on at its \
                 oldest record"
            );
            tracing::warn!(%shard, stream, number, "{text}");
            let gap = place.resumed.then(|| Gap { message: text.clone(), horizon: *horizon });
            place.give_up();
            (again(text), gap)
        }
        Begin::Horizon => (error, None),
    }
}

/// What an answer shows to be missing before it, if anything.
pub(crate) fn found(place: &mut Place, whose: &Whose) -> Option<Gap> {
    let Whose { split: shard, stream, horizon } = whose;
    if let Some((number, found)) = place.missed() {
        // The last record that was read is gone, and whatever came right after it may be.
        let until = found.map_or("its end".to_owned(), |found| format!("{found}, the oldest that is left"));
        let message = format!(
            "shard `{shard}` of stream `{stream}` no longer holds sequence number {number}: records between it and {until} \
             may be lost"
        );
        tracing::warn!(%shard, stream, number, "{message}");
        return Some(Gap { message, horizon: *horizon });
    }
    let (number, at) = place.lapsed(horizon.map(|horizon| Timestamp(horizon.0 + CLOCKS_APART_MS)))?;
    let message = format!(
        "shard `{shard}` of stream `{stream}` was read up to {number} at {at}, and what came soon after may have aged out \
         since"
    );
    tracing::warn!(%shard, stream, number, "{message}");
    Some(Gap { message, horizon: *horizon })
}
