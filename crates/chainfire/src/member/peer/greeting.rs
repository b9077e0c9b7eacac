//! The first words of a connection: do both speak the same, and is each the one whom the other means.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::frame::{self, HELLO_BYTES_MAX};
use super::network::Pipe;
use super::wire::{Hello, HelloAnswer, MAGIC, VERSION};
use crate::member::types::MemberId;

/// From the first byte to the welcome, TLS included.
pub const GREETING_MAX: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum GreetingError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it did not answer within {}s", GREETING_MAX.as_secs())]
    Late,
    #[error("what answers is no member of a store")]
    Stranger,
    #[error("it speaks version {theirs} of the members' protocol, this one speaks version {VERSION}")]
    Version { theirs: u16 },
    #[error("it belongs to another cluster, {cluster:x}")]
    OtherCluster { cluster: u64 },
    #[error("member {member:x} answers in place of the one that was called")]
    OtherMember { member: MemberId },
    #[error("it has too many connections already")]
    Busy,
}

/// As the one who calls. Answers cluster and member of the other side.
pub async fn greet(pipe: &mut Pipe, hello: &Hello) -> Result<(u64, MemberId), GreetingError> {
    let mut bytes = head();
    frame::put(&mut bytes, 0, hello)?;
    pipe.write_all(&bytes).await?;
    pipe.flush().await?;
    read_head(pipe).await?;
    match read(pipe).await? {
        HelloAnswer::Welcome { cluster, member } => Ok((cluster, member)),
        HelloAnswer::OtherCluster { cluster } => Err(GreetingError::OtherCluster { cluster }),
        HelloAnswer::OtherMember { member } => Err(GreetingError::OtherMember { member }),
        HelloAnswer::Busy => Err(GreetingError::Busy),
    }
}

/// As the one who is called. What `judge` does not welcome ends here.
pub async fn welcome(pipe: &mut Pipe, judge: impl Fn(&Hello) -> HelloAnswer) -> Result<Hello, GreetingError> {
    let mut bytes = head();
    if let Err(error) = read_head(pipe).await {
        if matches!(error, GreetingError::Version { .. }) {
            // So that the other side can say what is wrong.
            pipe.write_all(&bytes).await?;
            pipe.flush().await?;
        }
        return Err(error);
    }
    let hello: Hello = read(pipe).await?;
    let answer = judge(&hello);
    frame::put(&mut bytes, 0, &answer)?;
    pipe.write_all(&bytes).await?;
    pipe.flush().await?;
    match answer {
        HelloAnswer::Welcome { .. } => Ok(hello),
        HelloAnswer::OtherCluster { .. } => {
            Err(GreetingError::OtherCluster { cluster: hello.cluster.unwrap_or_default() })
        }
        HelloAnswer::OtherMember { .. } => Err(GreetingError::OtherMember { member: hello.to.unwrap_or_default() }),
        HelloAnswer::Busy => Err(GreetingError::Busy),
    }
}

fn head() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes
}

async fn read_head(pipe: &mut Pipe) -> Result<(), GreetingError> {
    let mut magic = [0; MAGIC.len()];
    pipe.read_exact(&mut magic).await?;
    if magic != MAGIC {
        return Err(GreetingError::Stranger);
    }
    let theirs = pipe.read_u16_le().await?;
    if theirs == VERSION { Ok(()) } else { Err(GreetingError::Version { theirs }) }
}

async fn read<M: serde::de::DeserializeOwned>(pipe: &mut Pipe) -> Result<M, GreetingError> {
    let frame = frame::take(pipe, HELLO_BYTES_MAX).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(frame::message(&frame.message)?)
}

impl From<io::ErrorKind> for GreetingError {
    fn from(kind: io::ErrorKind) -> Self {
        Self::Io(kind.into())
    }
}
