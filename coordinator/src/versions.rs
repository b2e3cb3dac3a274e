//! Tells tools which protocols this coordinator speaks, and refuses those that are too far apart, before they ask for anything.

use proto::{
    Protocols,
    v1::{AgreeReply, AgreeRequest, versions_server::Versions},
};
use tonic::{Code, Request, Response, Status};

/// This coordinator, for people who read a refusal.
pub(crate) const NAME: &str = concat!("the coordinator (release ", env!("CARGO_PKG_VERSION"), ")");

/// Serves `Versions`.
pub(crate) struct VersionsService;

#[tonic::async_trait]
impl Versions for VersionsService {
    async fn agree(&self, request: Request<AgreeRequest>) -> Result<Response<AgreeReply>, Status> {
        let AgreeRequest { protocol_from, protocol_to } = request.into_inner();
        let (ours, them) = (Protocols::OURS, Protocols::said(protocol_from, protocol_to));
        let refused = |reason| proto::refusal(Code::FailedPrecondition, "PROTOCOL", reason, &[]);
        let protocol = ours.agree(them, (NAME, "the caller")).map_err(refused)?;
        let (protocol_from, protocol_to) = (ours.from(), ours.to());
        Ok(Response::new(AgreeReply { protocol, protocol_from, protocol_to }))
    }
}
