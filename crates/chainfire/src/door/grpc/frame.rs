//! Messages in the frames that gRPC puts around them: one byte that says "not compressed", four bytes of length.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::RecvStream;
use hyper::body::{Body, Frame, Incoming};
use prost::Message;
use store::limits::REQUEST_BYTES_MAX;
use tonic::{Code, Status};

pub const PREFIX_BYTES: usize = 5;

/// Longest message that is read: the store's limit and 512 KiB for what the protocol adds, which is etcd's default.
pub const MESSAGE_BYTES_MAX: usize = REQUEST_BYTES_MAX + 512 * 1024;

/// Up to this size a message is copied out of the buffer that it shares with the next.
const COPY_BYTES_MAX: usize = 64 * 1024;

pub fn encode(message: &impl Message) -> Bytes {
    let mut frame = start(message.encoded_len());
    message.encode_raw(&mut frame);
    frame.freeze()
}

/// A frame that waits for a message of `bytes` bytes.
pub fn start(bytes: usize) -> BytesMut {
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + bytes);
    frame.put_u8(0);
    frame.put_u32(bytes as u32);
    frame
}

/// Where a request's messages come from.
pub enum Wire {
    Http2(RecvStream),
    Http1(Incoming),
    /// All of them at once, for a request that was translated.
    Whole(Bytes),
}

impl Body for Wire {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Http2(body) => body.poll_data(cx).map(|data| {
                Some(data?.map_err(Into::into).and_then(|data| {
                    body.flow_control().release_capacity(data.len())?;
                    Ok(Frame::data(data))
                }))
            }),
            Self::Http1(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http2(body) => body.is_end_stream(),
            Self::Http1(body) => body.is_end_stream(),
            Self::Whole(bytes) => bytes.is_empty(),
        }
    }
}

/// The messages of a request's body, one after the other.
pub struct Messages<B = Wire> {
    body: B,
    /// A message that came in one piece, as most do.
    whole: Option<Bytes>,
    buffered: BytesMut,
    ended: bool,
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    pub fn new(body: B) -> Self {
        Self { body, whole: None, buffered: BytesMut::new(), ended: false }
    }

    /// The next message and its length in bytes; `None` when the client has sent its last one. Cancel safe.
    pub async fn next<M: Message + Default>(&mut self) -> Result<Option<(M, usize)>, Status> {
        loop {
            if let Some(message) = self.take()? {
                let bytes = message.len();
                return match M::decode(message) {
                    Ok(message) => Ok(Some((message, bytes))),
                    Err(error) => Err(Status::internal(format!("grpc: error unmarshalling request: {error}"))),
                };
            }
            if self.ended {
                let whole = self.buffered.is_empty();
                return if whole { Ok(None) } else { Err(Status::internal("grpc: the last message is cut off")) };
            }
            self.read().await?;
        }
    }

    /// The only message of a unary call.
    pub async fn only<M: Message + Default>(mut self) -> Result<(M, usize), Status> {
        let Some(message) = self.next().await? else {
            return Err(Status::internal("grpc: a unary call without a message"));
        };
        // A body that is dropped before its end would be taken for a cancelled call.
        while !self.ended && !self.body.is_end_stream() {
            self.read().await?;
            if !self.buffered.is_empty() || self.whole.is_some() {
                return Err(Status::internal("grpc: a unary call with more than one message"));
            }
        }
        Ok(message)
    }

    async fn read(&mut self) -> Result<(), Status> {
        let frame = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await;
        match frame {
            None => self.ended = true,
            Some(Err(error)) => return Err(Status::cancelled(error.to_string())),
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { return Ok(()) };
                if self.buffered.is_empty()
                    && let Some(([0, length @ ..], message)) = data.split_first_chunk::<PREFIX_BYTES>()
                    && u32::from_be_bytes(*length) as usize == message.len()
                {
                    // Copied out of the buffer it arrived in: that is shared with what came before and after it, and a
                    // key kept in memory would keep all of it.
                    self.whole = Some(Bytes::copy_from_slice(message));
                } else {
                    self.buffered.extend_from_slice(&data);
                }
            }
        }
        Ok(())
    }

    /// A whole message, when it has arrived.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        if let Some(whole) = self.whole.take() {
            return Ok(Some(whole));
        }
        let Some(prefix) = self.buffered.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let [compressed, length @ ..] = *prefix;
        if compressed != 0 {
            return Err(Status::unimplemented("grpc: Decompressor is not installed for grpc-encoding"));
        }
        let bytes = u32::from_be_bytes(length) as usize;
        if bytes > MESSAGE_BYTES_MAX {
            let text = format!("grpc: received message larger than max ({bytes} vs. {MESSAGE_BYTES_MAX})");
            return Err(Status::new(Code::ResourceExhausted, text));
        }
        if self.buffered.len() < PREFIX_BYTES + bytes {
            self.buffered.reserve(PREFIX_BYTES + bytes - self.buffered.len());
            return Ok(None);
        }
        self.buffered.advance(PREFIX_BYTES);
        let message = self.buffered.split_to(bytes);
        if self.buffered.is_empty() || bytes > COPY_BYTES_MAX {
            return Ok(Some(message.freeze()));
        }
        Ok(Some(Bytes::copy_from_slice(&message)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use etcd::proto::etcdserverpb::PutRequest;

    use super::*;

    struct Pieces(VecDeque<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    fn put(key: &'static str) -> PutRequest {
        PutRequest { key: Bytes::from_static(key.as_bytes()), ..PutRequest::default() }
    }

    fn messages(bytes: &[u8], piece: usize) -> Messages<Pieces> {
        Messages::new(Pieces(bytes.chunks(piece).map(Bytes::copy_from_slice).collect()))
    }

    #[tokio::test]
    async fn messages_arrive_whole_however_the_bytes_are_cut() {
        let bytes = [encode(&put("a")), encode(&put("")), encode(&put("ccc"))].concat();
        for piece in 1..=bytes.len() {
            let mut messages = messages(&bytes, piece);
            for key in ["a", "", "ccc"] {
                assert_eq!(messages.next::<PutRequest>().await.unwrap().unwrap().0, put(key), "{piece}");
            }
            assert!(messages.next::<PutRequest>().await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        let whole = encode(&put("abc"));
        let code = async |bytes: &[u8]| messages(bytes, 64).only::<PutRequest>().await.unwrap_err().code();
        assert_eq!(code(&whole[..whole.len() - 1]).await, Code::Internal);
        assert_eq!(code(&[]).await, Code::Internal);
        assert_eq!(code(&[whole.clone(), whole].concat()).await, Code::Internal);
        assert_eq!(code(&[1, 0, 0, 0, 0]).await, Code::Unimplemented);
        assert_eq!(code(&[0, 0xff, 0xff, 0xff, 0xff]).await, Code::ResourceExhausted);
        assert_eq!(code(&[0, 0, 0, 0, 1, 0xff]).await, Code::Internal);
    }
}
