//! Who calls: a user with a password, or the bearer of a token. Shown with every call; a certificate is the transport's matter.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Args;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
};

use crate::failure::Failure;

/// The variable that holds a password.
const PASSWORD: &str = "SHARDWRIGHT_PASSWORD";

/// How to log in.
#[derive(Args, Clone, Debug, Default)]
pub struct LoginArgs {
    /// Log in as this user, with the password in --password-file or in the variable SHARDWRIGHT_PASSWORD
    #[arg(long, global = true, value_name = "NAME", env = "SHARDWRIGHT_USER")]
    user: Option<String>,
    /// File with that user's password
    #[arg(long, global = true, value_name = "FILE", env = "SHARDWRIGHT_PASSWORD_FILE")]
    password_file: Option<PathBuf>,
    /// File with a token to show: of an issuer that the coordinators know, or a Kubernetes service account's
    #[arg(long, global = true, value_name = "FILE", env = "SHARDWRIGHT_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

impl LoginArgs {
    /// What is shown with every call to this server.
    pub fn login(&self, server: &str) -> Result<Login, Failure> {
        let login = match (&self.user, &self.token_file) {
            (Some(_), Some(_)) => {
                return Err(usage("--user and --token-file are two ways to log in: give one of them"));
            }
            (None, Some(path)) => Login::Token(path.clone()),
            (Some(user), None) => Login::Fixed(basic(user, &self.password()?)?),
            (None, None) if self.password_file.is_some() => {
                return Err(usage("--password-file needs --user NAME"));
            }
            (None, None) => Login::Nothing,
        };
        if !matches!(login, Login::Nothing) && goes_unencrypted(server) {
            eprintln!("WARNING: the login goes unencrypted to {server}: say --server https://…");
        }
        // What cannot be read is said before anything is asked.
        login.header()?;
        Ok(login)
    }

    fn password(&self) -> Result<String, Failure> {
        match (&self.password_file, std::env::var(PASSWORD)) {
            (Some(path), _) => read(path, "--password-file"),
            (None, Ok(password)) => Ok(password),
            (None, Err(_)) => Err(usage(&format!(
                "--user needs a password: --password-file FILE, or the variable {PASSWORD}"
            ))),
        }
    }
}

fn usage(text: &str) -> Failure {
    Failure::Usage(format!("ERROR: {text}"))
}

fn read(path: &Path, flag: &str) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| usage(&format!("cannot read `{}` ({flag}): {error}", path.display())))?;
    // Files end with a line end that is no part of the secret.
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn basic(user: &str, password: &str) -> Result<MetadataValue<Ascii>, Failure> {
    if user.contains(':') || user.is_empty() {
        return Err(usage("a user who logs in by a password has a name without a colon"));
    }
    header(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

fn header(text: &str) -> Result<MetadataValue<Ascii>, Failure> {
    let mut header =
        MetadataValue::try_from(text).map_err(|_| usage("what was given to log in by cannot be sent"))?;
    header.set_sensitive(true);
    Ok(header)
}

/// Whether somebody on the way could read along.
fn goes_unencrypted(server: &str) -> bool {
    let Some(rest) = server.strip_prefix("http://").or((!server.contains("://")).then_some(server)) else {
        return false;
    };
    let host = rest.split('/').next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host).trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    !here
}

/// What is shown with a call. `Debug` shows nothing of it.
#[derive(Clone)]
pub enum Login {
    /// Nothing.
    Nothing,
    /// The same each time.
    Fixed(MetadataValue<Ascii>),
    /// The token in this file, read for each call: a service account's is replaced while a prompt is open.
    Token(PathBuf),
}

impl Login {
    fn header(&self) -> Result<Option<MetadataValue<Ascii>>, Failure> {
        match self {
            Self::Nothing => Ok(None),
            Self::Fixed(header) => Ok(Some(header.clone())),
            Self::Token(path) => header(&format!("Bearer {}", read(path, "--token-file")?.trim())).map(Some),
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

impl Interceptor for Login {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let header = self.header().map_err(|failure| Status::unauthenticated(failure.to_string()))?;
        if let Some(header) = header {
            request.metadata_mut().insert("authorization", header);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn shown(args: &LoginArgs) -> Result<Option<String>, Failure> {
        let header = args.login("http://127.0.0.1:1")?.header()?;
        Ok(header.map(|header| header.to_str().unwrap().to_owned()))
    }

    #[test]
    fn a_password_comes_from_a_file_without_its_line_end() {
        let password = file("it's: secret\n");
        let args = LoginArgs {
            user: Some("alice".to_owned()),
            password_file: Some(password.path().to_owned()),
            ..LoginArgs::default()
        };
        let wanted = format!("Basic {}", STANDARD.encode("alice:it's: secret"));
        assert_eq!(shown(&args).unwrap(), Some(wanted));
        assert_eq!(shown(&LoginArgs::default()).unwrap(), None);
    }

    #[test]
    fn a_token_is_read_anew_for_each_call() {
        let token = file("a.b.c\n");
        let args = LoginArgs { token_file: Some(token.path().to_owned()), ..LoginArgs::default() };
        let mut login = args.login("https://c:1").unwrap();
        let mut sent = || {
            let request = login.call(Request::new(())).unwrap();
            request.metadata().get("authorization").unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(sent(), "Bearer a.b.c");
        std::fs::write(token.path(), "d.e.f").unwrap();
        assert_eq!(sent(), "Bearer d.e.f");
    }

    #[test]
    fn what_does_not_go_together_is_usage_and_tells_no_secret() {
        let token = file("a.b.c");
        let path = || Some(token.path().to_owned());
        let user = || Some("alice".to_owned());
        for (args, wanted) in [
            (LoginArgs { user: user(), token_file: path(), ..LoginArgs::default() }, "two ways to log in"),
            (LoginArgs { password_file: path(), ..LoginArgs::default() }, "needs --user"),
            (
                LoginArgs { user: Some("a:b".to_owned()), password_file: path(), ..LoginArgs::default() },
                "without a colon",
            ),
            (
                LoginArgs { token_file: Some("/absent/token".into()), ..LoginArgs::default() },
                "`/absent/token`",
            ),
        ] {
            let failure = shown(&args).unwrap_err();
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.to_string().contains(wanted), "{failure}");
        }
        let broken = file("a\nb");
        let args = LoginArgs { token_file: Some(broken.path().to_owned()), ..LoginArgs::default() };
        assert!(shown(&args).is_err());
    }

    #[test]
    fn only_this_machine_and_tls_are_private() {
        for server in [
            "http://127.0.0.1:7070",
            "http://localhost:7070",
            "http://[::1]:7070",
            "https://c:1",
            "127.0.0.1:1",
        ] {
            assert!(!goes_unencrypted(server), "{server}");
        }
        for server in ["http://c:1", "c:1", "http://10.0.0.1", "http://127.0.0.1.evil:1"] {
            assert!(goes_unencrypted(server), "{server}");
        }
    }
}
