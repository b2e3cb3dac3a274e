//! Who a caller of the admin API is. Asked by `admit` for every call before anything else; what a caller may do is
//! `sql::access`, asked by `permit`.
//!
//! * `credentials` reads what a call brings along, `password` and `token` (with `jwks`) look at it, `lockout` counts guesses.
//! * `denied` says why not. `audit` tells every call. `config` is `[auth]`.
//!
//! Only the leader knows users, so only the leader believes: a coordinator that passes a call on passes the caller's own
//! credentials on and vouches for nobody (docs/adr/0012). The one exception is a certificate, which cannot be shown twice: the
//! names in it are passed on, and believed only of a coordinator whose own certificate is named in `auth.peers`.

mod audit;
mod config;
mod credentials;
mod denied;
mod jwks;
mod lockout;
mod password;
mod token;

use std::{
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

use model::{Grantee, GranteeKind, PasswordHash};
use sql::access::Principal;
use tonic::{Extensions, metadata::MetadataMap};

pub(crate) use audit::{Audit, Origin, Told};
pub use config::{Anonymous, AuthConfig, JwtConfig, Secret};
pub(crate) use denied::Denied;
pub(crate) use password::{PASSWORD_BYTES_MAX, hash};

use crate::handle::Leader;
use credentials::{Shown, shown};
use lockout::Attempt;
use password::Passwords;
use token::Tokens;

/// Marks a call that was passed on, with the address of who did.
pub(super) const PASSED_ON: &str = "shardwright-passed-on-by";

/// The names in the certificate of who made a call that was passed on, and where it came from.
pub(super) const CALLER_NAMES: &str = "shardwright-caller-names-bin";
pub(super) const CALLER_ADDRESS: &str = "shardwright-caller-address";

/// More names in a certificate than this are not looked at.
const NAMES_MAX: usize = 16;

/// A caller who is known.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Whose rights it has.
    pub principal: Principal,
    /// A token says nothing after this moment.
    until: Option<SystemTime>,
}

impl Caller {
    /// Whether what it showed is still good.
    pub fn is_good(&self) -> bool {
        self.until.is_none_or(|until| SystemTime::now() <= until)
    }

    fn administrator() -> Self {
        let principal = Principal { administrator: true, ..Principal::default() };
        Self { principal, until: None }
    }
}

/// What a call shows, before anybody looks whether it is true.
#[derive(Debug)]
pub(super) struct Knock {
    shown: Shown,
    /// Names in a certificate that was verified.
    names: Vec<String>,
    address: Option<IpAddr>,
}

/// Where who passed a call on says that it came from.
fn said_from(metadata: &MetadataMap) -> Option<IpAddr> {
    metadata.get(CALLER_ADDRESS)?.to_str().ok()?.parse().ok()
}

/// Where a call came from.
pub(super) fn address(extensions: &Extensions) -> Option<SocketAddr> {
    extensions.get::<daemon::Peer>().map(daemon::Peer::address)
}

/// Who is let in by one coordinator.
pub(super) struct Logins {
    config: AuthConfig,
    anonymous: bool,
    passwords: Passwords,
    tokens: Option<Tokens>,
}

impl Logins {
    /// Of a coordinator that listens there.
    pub fn new(config: &AuthConfig, listener: SocketAddr) -> Self {
        Self {
            config: config.clone(),
            anonymous: config.admits_anonymous(listener),
            passwords: Passwords::default(),
            tokens: Tokens::new(&config.jwt),
        }
    }

    /// Whether who is at the other end of the connection is believed about who called it.
    fn believes(&self, extensions: &Extensions) -> bool {
        let names = extensions.get::<daemon::Peer>().map(daemon::Peer::names).unwrap_or_default();
        names.iter().any(|name| self.config.peers.contains(name))
    }

    /// Where a call comes from, for the audit log.
    pub fn origin(&self, metadata: &MetadataMap, extensions: &Extensions) -> Origin {
        let from = address(extensions).map(|from| from.to_string()).unwrap_or_default();
        let Some(by) = metadata.get(PASSED_ON) else { return Origin { from, ..Origin::default() } };
        let said_from = said_from(metadata).map(|from| from.to_string()).unwrap_or_default();
        let believed = !said_from.is_empty() && self.believes(extensions);
        let from = if believed { said_from.clone() } else { from };
        Origin { from, passed_on_by: by.to_str().unwrap_or("?").to_owned(), said_from }
    }

    /// Reads what a call shows. A call that shows nothing is refused here already if nobody without credentials is let in:
    /// a leader that listens on a loopback address must not be fooled by a follower that does not.
    pub fn knock(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<Knock, Denied> {
        let shown = shown(metadata)?;
        let peer = extensions.get::<daemon::Peer>();
        let own = peer.map(daemon::Peer::names).unwrap_or_default();
        let mut knock = Knock { shown, names: Vec::new(), address: peer.map(|peer| peer.address().ip()) };
        if metadata.contains_key(PASSED_ON) {
            // The certificate is that of who passed it on, and says nothing about who called.
            if self.believes(extensions) {
                knock.names = passed_on_names(metadata);
                knock.address = said_from(metadata).or(knock.address);
            }
        } else {
            knock.names = own.iter().take(NAMES_MAX).cloned().collect();
        }
        match knock.shown {
            Shown::Nothing if knock.names.is_empty() && !self.anonymous => Err(self.nothing()),
            _ => Ok(knock),
        }
    }

    fn nothing(&self) -> Denied {
        let hint = match &self.tokens {
            Some(_) => {
                "say --user NAME with --password-file FILE, or --token-file FILE, or show a certificate (--cert, --key)"
            }
            None => "say --user NAME with --password-file FILE, or show a certificate (--cert, --key)",
        };
        Denied::Nothing { hint }
    }

    /// Who it is, by what the leader knows.
    pub async fn authenticate(
        &self,
        leader: &Leader,
        knock: Knock,
        audit: &mut Audit,
    ) -> Result<Caller, Denied> {
        match knock.shown {
            Shown::Password { user, password } => {
                audit.user(&user, "password");
                let found = leader.grantee(&user).filter(|found| found.kind == GranteeKind::User);
                let stored: Option<&PasswordHash> = found.as_ref().and_then(|found| found.password.as_ref());
                let attempt = Attempt::new(&user, knock.address);
                self.passwords.verify(&attempt, &user, &password, stored).await?;
                let mut caller = of_user(user, found.as_ref());
                caller.principal.by_password = true;
                Ok(caller)
            }
            Shown::Token(token) => {
                audit.user("", "token");
                let tokens = self.tokens.as_ref().ok_or(Denied::Token("tokens are not taken here"))?;
                let claims = tokens.verify(&token).await?;
                audit.user(&claims.user, "token");
                by_token(leader, claims)
            }
            Shown::Nothing => {
                for name in knock.names {
                    if let Some(found) = leader.grantee(&name).filter(is_without_password) {
                        audit.user(&name, "certificate");
                        return Ok(of_user(name, Some(&found)));
                    }
                    audit.user(&name, "certificate");
                }
                if !self.anonymous {
                    return Err(Denied::Nothing { hint: NO_USER_OF_CERTIFICATE });
                }
                audit.user("", "anonymous");
                Ok(Caller::administrator())
            }
        }
    }
}

const NO_USER_OF_CERTIFICATE: &str = "no name in the certificate is that of a user without a password: CREATE USER \"name\" makes one; \
     a call that another coordinator passed on needs that coordinator's name in auth.peers here";

/// A user with a password logs in by it and by nothing else: neither an issuer of tokens nor whoever signs certificates
/// becomes the administrator by choosing a name.
fn is_without_password(found: &Grantee) -> bool {
    found.kind == GranteeKind::User && found.password.is_none()
}

fn of_user(name: String, found: Option<&Grantee>) -> Caller {
    let principal = Principal { name: Some(name), id: found.map(|found| found.id), ..Principal::default() };
    Caller { principal, until: None }
}

fn by_token(leader: &Leader, claims: token::Claims) -> Result<Caller, Denied> {
    let found = leader.grantee(&claims.user);
    if found.as_ref().is_some_and(|found| !is_without_password(found)) {
        return Err(Denied::Token("the user that the token names logs in by a password"));
    }
    let role = |name: &String| {
        leader.grantee(name).filter(|role| role.kind == GranteeKind::Role).map(|role| role.id)
    };
    let roles: std::collections::BTreeSet<_> = claims.roles.iter().filter_map(role).collect();
    if found.is_none() && roles.is_empty() {
        return Err(Denied::Token("the token names no user that is here, and brings no role that is"));
    }
    let mut caller = of_user(claims.user, found.as_ref());
    caller.principal.roles = roles;
    caller.until = Some(claims.until);
    Ok(caller)
}

/// Names, each with its length in one byte before it.
fn passed_on_names(metadata: &MetadataMap) -> Vec<String> {
    let bytes = metadata.get_bin(CALLER_NAMES).and_then(|value| value.to_bytes().ok()).unwrap_or_default();
    let (mut names, mut rest) = (Vec::new(), &bytes[..]);
    while let Some((&length, tail)) = rest.split_first() {
        let Some((name, tail)) = tail.split_at_checked(usize::from(length)) else { break };
        names.extend(std::str::from_utf8(name).map(str::to_owned));
        rest = tail;
    }
    names.truncate(NAMES_MAX);
    names
}

/// What [`passed_on_names`] reads; longer names than a certificate's are left out.
pub(super) fn names_to_pass_on(extensions: &Extensions) -> Vec<u8> {
    let peer = extensions.get::<daemon::Peer>();
    let names = peer.map(daemon::Peer::names).unwrap_or_default();
    let mut bytes = Vec::new();
    for name in names.iter().take(NAMES_MAX) {
        if let Ok(length) = u8::try_from(name.len()) {
            bytes.push(length);
            bytes.extend_from_slice(name.as_bytes());
        }
    }
    bytes
}
