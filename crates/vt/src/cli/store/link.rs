//! A way to the members of a store that speaks etcd's protocol: ChainFire's door, or etcd itself.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use etcd::{Client, Connection, Identity, Login, Options, Repeat, Tls};
use model::Code;
use tonic::{Response, Status};

use super::told::told;
use crate::engine::Access;
use crate::failure::Failure;

/// A certificate, a key or a password is no longer.
const SECRET_BYTES_MAX: u64 = 1 << 20;
const ENDPOINTS_MAX: usize = 64;

/// How to reach a store's members.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "The store")]
pub struct LinkArgs {
    /// Members to ask, HOST:PORT or URL, separated by commas
    #[arg(
        long,
        value_name = "LIST",
        env = "VT_STORE_ENDPOINTS",
        hide_env_values = true,
        default_value = "127.0.0.1:2379"
    )]
    endpoints: String,
    /// Authorities that signed the members' certificates, PEM; makes HOST:PORT mean https
    #[arg(long, value_name = "FILE", env = "VT_STORE_CACERT", hide_env_values = true)]
    cacert: Option<PathBuf>,
    /// Certificate to show, PEM
    #[arg(
        id = "tls_cert",
        long = "cert",
        value_name = "FILE",
        env = "VT_STORE_CERT",
        hide_env_values = true,
        requires = "tls_key"
    )]
    cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(
        id = "tls_key",
        long = "key",
        value_name = "FILE",
        env = "VT_STORE_KEY",
        hide_env_values = true,
        requires = "tls_cert"
    )]
    key: Option<PathBuf>,
    /// Name to log in with; the password comes from --password-file or VT_STORE_PASSWORD
    #[arg(long, value_name = "NAME", env = "VT_STORE_USER", hide_env_values = true)]
    user: Option<String>,
    /// File with the password, - for stdin
    #[arg(long, value_name = "FILE|-", env = "VT_STORE_PASSWORD_FILE", hide_env_values = true)]
    password_file: Option<String>,
    /// The longest that one request may take: 5s, 1m
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = crate::cli::wait::seconds)]
    timeout: u64,
}

/// The members that may be asked.
pub struct Link {
    pub client: Client,
    options: Options,
}

impl Link {
    /// Connects to the first member that answers, in the order of `--endpoints`.
    pub async fn open(args: &LinkArgs) -> Result<Self, Failure> {
        Self::connect(options(args)?).await
    }

    async fn connect(options: Options) -> Result<Self, Failure> {
        let client = Client::connect(&options).await.map_err(|error| refused(&error))?;
        Ok(Self { client, options })
    }

    /// Members at these URLs, with the same credentials.
    pub async fn at(&self, urls: &[String]) -> Result<Self, Failure> {
        Self::connect(Options { endpoints: urls.to_vec(), ..self.options.clone() }).await
    }

    /// Something that changes nothing, or the same when done twice: asked again at another member when one is gone.
    pub async fn read<A, F>(&self, act: impl Fn(Connection) -> F) -> Result<A, Failure>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        self.client.call(Repeat::Always, act).await.map_err(|status| told(&status))
    }

    /// Something that must not happen twice.
    pub async fn change<A, F>(&self, act: impl Fn(Connection) -> F) -> Result<A, Failure>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        self.client.call(Repeat::Untouched, act).await.map_err(|status| told(&status))
    }

    /// What one member says, within `--timeout`.
    pub async fn one<A>(&self, act: impl Future<Output = Result<Response<A>, Status>>) -> Result<A, Failure> {
        let time = self.options.request_time_max;
        let answer = tokio::time::timeout(time, act).await;
        let late = |_| Status::deadline_exceeded(format!("not within {} s", time.as_secs()));
        answer.map_err(late).and_then(|answer| answer).map(Response::into_inner).map_err(|status| told(&status))
    }
}

fn refused(error: &etcd::Error) -> Failure {
    let why = error.to_string();
    match error {
        etcd::Error::NoEndpoint | etcd::Error::Endpoint { .. } => {
            Failure::usage(format!("--endpoints: {why}")).hint("--endpoints 10.0.0.1:2379,10.0.0.2:2379")
        }
        etcd::Error::NoAuthority { .. } => Failure::usage(why).hint("--cacert FILE"),
        etcd::Error::Tls { .. } => Failure::usage(why).hint("look at --cacert, --cert and --key"),
        etcd::Error::Login { .. } => {
            Failure::new(Code::Unauthenticated, why).hint("--user NAME --password-file FILE, or - for stdin")
        }
        etcd::Error::Unreachable { .. } => Failure::new(Code::Unavailable, "no member of the store can be reached")
            .why(why)
            .hint("vt store serve   starts one here; --endpoints HOST:PORT   asks others"),
    }
}

/// As the engine takes it.
pub fn options(args: &LinkArgs) -> Result<Options, Failure> {
    let listed: Vec<&str> = args.endpoints.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    if listed.len() > ENDPOINTS_MAX {
        return Err(Failure::usage(format!(
            "--endpoints names {} members, at most {ENDPOINTS_MAX} are asked",
            listed.len()
        )));
    }
    let time = Duration::from_secs(args.timeout.max(1));
    Ok(Options {
        tls: tls(args)?,
        login: login(args)?,
        connect_time_max: time,
        request_time_max: time,
        ..Options::new(listed)
    })
}

fn pem(flag: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    let file = std::fs::File::open(path);
    let mut bytes = Vec::new();
    let read = file.and_then(|file| file.take(SECRET_BYTES_MAX).read_to_end(&mut bytes));
    read.map_err(|error| Failure::usage(format!("{flag} {}: {error}", path.display())))?;
    Ok(bytes)
}

fn tls(args: &LinkArgs) -> Result<Option<Tls>, Failure> {
    let Some(authority) = &args.cacert else {
        return match &args.cert {
            Some(_) => Err(Failure::usage("--cert needs --cacert FILE: nobody is believed without it")),
            None => Ok(None),
        };
    };
    let identity = match (&args.cert, &args.key) {
        (Some(certificate), Some(key)) => {
            Some(Identity { certificate: pem("--cert", certificate)?, key: pem("--key", key)? })
        }
        _ => None,
    };
    Ok(Some(Tls { authority: pem("--cacert", authority)?, identity, server_name: None }))
}

fn login(args: &LinkArgs) -> Result<Option<Login>, Failure> {
    let Some(user) = &args.user else {
        return match &args.password_file {
            Some(_) => Err(Failure::usage("--password-file needs --user NAME")),
            None => Ok(None),
        };
    };
    if let Some((name, _)) = user.split_once(':') {
        return Err(Failure::usage("a password stands on the command line, where others can read it")
            .why("arguments are seen by every process of the machine and kept in the shell's history")
            .hint(format!("--user {name} --password-file FILE, or - for stdin")));
    }
    let password = password(args)?.ok_or_else(|| {
        Failure::usage(format!("the password of {user} is missing"))
            .hint("--password-file FILE, or - for stdin, or VT_STORE_PASSWORD")
    })?;
    Ok(Some(Login { user: user.clone(), password }))
}

fn password(args: &LinkArgs) -> Result<Option<String>, Failure> {
    let mut password = Vec::new();
    let read = match args.password_file.as_deref() {
        Some("-") => std::io::stdin().take(SECRET_BYTES_MAX).read_to_end(&mut password),
        Some(path) => std::fs::File::open(path).and_then(|file| file.take(SECRET_BYTES_MAX).read_to_end(&mut password)),
        None => return Ok(std::env::var("VT_STORE_PASSWORD").ok()),
    };
    read.map_err(|error| Failure::usage(format!("--password-file cannot be read: {error}")))?;
    let text = String::from_utf8(password).map_err(|_| Failure::usage("--password-file does not hold text"))?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

impl LinkArgs {
    /// For an engine that is opened by its URL.
    pub fn access(&self) -> Result<Access, Failure> {
        Ok(Access {
            authority: self.cacert.clone(),
            certificate: self.cert.clone(),
            key: self.key.clone(),
            user: self.user.clone(),
            password: password(self)?,
        })
    }
}
