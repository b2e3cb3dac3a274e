//! The way of every call to the leader: read what it shows, find who leads, look who it is, ask whether it may. There is no
//! other way to a [`Leader`] in this room, so a call without a rule cannot be answered.

use futures::{StreamExt, stream::BoxStream};
use proto::v1::admin_client::AdminClient;
use sql::access::Call;
use tonic::{Request, Response, Status, transport::Channel};

use crate::handle::{Handle, Leader};

use super::{
    auth::{Audit, Caller, Logins, Told},
    forward::{Forward, Side},
    permit,
};

/// Rows of an answer.
pub(super) type Rows<T> = BoxStream<'static, Result<T, Status>>;

/// Where a call is answered.
pub(super) enum Admitted<T> {
    /// Here: the caller is known and may.
    Here(Visit, T),
    /// By another coordinator, which looks for itself.
    There(AdminClient<Channel>, Request<T>),
}

/// A call that was let in.
pub(super) struct Visit {
    /// As the caller sees it.
    pub leader: Leader,
    /// Who it is.
    pub caller: Caller,
    /// Told when it is over.
    pub audit: Audit,
}

impl Visit {
    /// Its answer.
    pub fn answer<T>(self, outcome: Result<T, Status>) -> Result<Response<T>, Status> {
        self.audit.end(outcome.as_ref().map(drop));
        outcome.map(Response::new)
    }

    /// Its answer in rows; it is over when they are.
    pub fn rows<T: Send + 'static>(
        self,
        outcome: Result<Rows<T>, Status>,
    ) -> Result<Response<Rows<T>>, Status> {
        match outcome {
            Ok(rows) => Ok(Response::new(Told::new(rows, self.audit).boxed())),
            Err(status) => self.answer(Err(status)),
        }
    }
}

/// The entrance of one coordinator.
pub(super) struct Entrance {
    forward: Forward,
    logins: Logins,
}

enum Found {
    Here(Leader, Caller),
    There(AdminClient<Channel>),
}

impl Entrance {
    pub fn new(handle: &Handle) -> Self {
        let logins = Logins::new(&handle.config().auth, handle.listener);
        Self { forward: Forward::new(handle.clone()), logins }
    }

    /// Lets a call in, or says why not.
    pub async fn admit<T: Send + Sync>(
        &self,
        request: Request<T>,
        call: fn(&T) -> Call<'_>,
    ) -> Result<Admitted<T>, Status> {
        let asked = call(request.get_ref());
        let origin = self.logins.origin(request.metadata(), request.extensions());
        let mut audit = Audit::begin(asked.name(), origin);
        audit.object(&asked.object());
        match self.find(&request, call, &mut audit).await {
            Ok(Found::Here(leader, caller)) => {
                Ok(Admitted::Here(Visit { leader, caller, audit }, request.into_inner()))
            }
            Ok(Found::There(client)) => {
                audit.left_to_another();
                Ok(Admitted::There(client, self.forward.passed_on(request)?))
            }
            Err(status) => {
                audit.end(Err(&status));
                Err(status)
            }
        }
    }

    async fn find<T: Send + Sync>(
        &self,
        request: &Request<T>,
        call: fn(&T) -> Call<'_>,
        audit: &mut Audit,
    ) -> Result<Found, Status> {
        let (metadata, extensions) = (request.metadata(), request.extensions());
        let knock = self.logins.knock(metadata, extensions).map_err(|denied| denied.status())?;
        let leader = match self.forward.side(metadata, extensions).await? {
            Side::Here(leader) => leader,
            Side::There(client) => return Ok(Found::There(client)),
        };
        let caller =
            self.logins.authenticate(&leader, knock, audit).await.map_err(|denied| denied.status())?;
        let leader = permit::call(&leader, &caller, call(request.get_ref()))?;
        Ok(Found::Here(leader, caller))
    }
}
