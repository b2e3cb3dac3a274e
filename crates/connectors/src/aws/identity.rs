//! Who AWS takes us for: asked by those who look whether a configuration works. STS answers everybody, so this tells wrong
//! credentials from missing permissions.

use std::time::Instant;

use connector::{Error, ErrorKind, Reader, Result};
use model::Options;

use super::{Access, Bulk, OPTIONS, Service, failure::failure};

/// The ARN of the caller that these options of a source or sink make, its role assumed. `None` where that is not asked: the
/// stream is at an endpoint of its own and STS is not.
pub(crate) async fn identity(options: &Options) -> Option<Result<String>> {
    let access = match access(options) {
        Ok(access) => access,
        Err(error) => return Some(Err(Error::new(ErrorKind::Config, error.to_string()))),
    };
    if !access.endpoints.is_empty() && access.sts_endpoint.is_none() {
        return None;
    }
    let limit = access.limits.attempt;
    let service = Service::new(access, Bulk::GetRecords, limit, None);
    let began = Instant::now();
    let answer = service.sts().await.get_caller_identity().send().await;
    Some(match answer {
        Ok(answer) => Ok(answer.arn().unwrap_or("nobody it would name").to_owned()),
        Err(error) => Err(failure("failed to ask who we are (GetCallerIdentity)", None, error, began).error),
    })
}

fn access(options: &Options) -> Result<Access, connector::OptionError> {
    let shared = |name: &str| OPTIONS.iter().any(|def| def.name == name || def.aliases.contains(&name));
    let own: Options = options.iter().filter(|(name, _)| shared(name)).collect();
    static DEFS: [connector::OptionDef; super::OPTIONS_LEN] = OPTIONS;
    Access::read(&mut Reader::new(&own, &DEFS)?)
}
