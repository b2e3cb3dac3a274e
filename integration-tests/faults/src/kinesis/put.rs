//! `PutRecords` of which some entries are refused: the others reach the endpoint, and the answer is put together in the order
//! of the request.

use serde_json::{Value, json};

use super::{Front, call::Call, upstream::Upstreamed, wire::answer};
use crate::Entries;

impl Front {
    pub(super) async fn put_records(&self, call: &Call, refuse: &[(String, Entries)]) -> Upstreamed {
        let Some(entries) = call.json["Records"].as_array() else { return self.upstream.pass(call).await };
        let codes: Vec<Option<&str>> = entries
            .iter()
            .enumerate()
            .map(|(place, entry)| {
                let met = refuse.iter().find(|(_, which)| self.meets(which, place, entry));
                met.map(|(code, _)| code.as_str())
            })
            .collect();
        let kept: Vec<&Value> =
            entries.iter().zip(&codes).filter(|(_, code)| code.is_none()).map(|(entry, _)| entry).collect();
        if kept.is_empty() {
            let refused: Vec<Value> = codes.iter().flatten().map(|code| refusal(code)).collect();
            return Ok(answer(&json!({ "FailedRecordCount": refused.len(), "Records": refused })));
        }
        let mut request = call.json.clone();
        request["Records"] = json!(kept);
        let mut answer = self.upstream.ask(call, "PutRecords", &request).await?;
        let mut stored = answer.json["Records"].as_array().cloned().unwrap_or_default().into_iter();
        let merged: Vec<Value> = codes
            .iter()
            .filter_map(|code| match code {
                Some(code) => Some(refusal(code)),
                None => stored.next(),
            })
            .collect();
        let failed = merged.iter().filter(|record| !record["ErrorCode"].is_null()).count();
        answer.json["FailedRecordCount"] = json!(failed);
        answer.json["Records"] = json!(merged);
        Ok(answer.into_response())
    }

    fn meets(&self, which: &Entries, place: usize, entry: &Value) -> bool {
        match which {
            Entries::All => true,
            Entries::Share(share) => self.faults.chance(*share),
            Entries::First(count) => place < *count,
            Entries::At(places) => places.contains(&place),
            Entries::Keys(keys) => keys.iter().any(|key| entry["PartitionKey"] == key.as_str()),
        }
    }
}

fn refusal(code: &str) -> Value {
    json!({ "ErrorCode": code, "ErrorMessage": "injected" })
}
