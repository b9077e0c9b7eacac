//! Blocks to members.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::extension::{EXTENSION_BYTES_MAX, Extension};
use super::header::{self, BLOCK_BYTES, Block, Header, Kind};
use super::sparse::{self, Extent, Trouble};
use super::{Problem, show};

/// Extensions before one member: more than one of each kind is already odd.
const EXTENSIONS_MAX: usize = 16;

/// One member of an archive. Its data is read from the [`Reader`] before the next member is asked for.
#[derive(Debug)]
pub struct Member {
    /// As written: may be absolute, may have `..`, may be empty. No NUL.
    pub path: Vec<u8>,
    /// Target of a link, as written.
    pub link: Vec<u8>,
    pub kind: Kind,
    /// Permission bits with set-id and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since the epoch and nanoseconds.
    pub mtime: (i64, u32),
    /// The file's size with its holes. 0 for what is not a file.
    pub size: u64,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where the data goes in a file with holes. `None`: the data is the file.
    pub extents: Option<Vec<Extent>>,
}

impl Member {
    pub fn name(&self) -> String {
        show(&self.path)
    }
}

/// Reads members one after the other. As `Read` it gives the current member's stored data.
pub struct Reader<R> {
    input: Counted<R>,
    /// Data of the current member not yet read, and the padding behind it.
    data_left: u64,
    padding_left: u64,
    done: bool,
}

/// Knows how far it has come, so that members can be found again in a file.
struct Counted<R> {
    inner: R,
    offset: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.offset += count as u64;
        Ok(count)
    }
}

impl<R: Read> Reader<R> {
    pub fn new(inner: R) -> Self {
        Self { input: Counted { inner, offset: 0 }, data_left: 0, padding_left: 0, done: false }
    }

    /// Bytes from the archive's beginning to the next one that is read.
    pub fn offset(&self) -> u64 {
        self.input.offset
    }

    /// Stored bytes of the current member not yet read.
    pub fn data_left(&self) -> u64 {
        self.data_left
    }

    /// The next member, or `None` at the end. After an error there is nothing more to ask.
    pub fn next_member(&mut self) -> Result<Option<Member>, Problem> {
        if self.done {
            return Ok(None);
        }
        let result = self.read_member();
        if !matches!(result, Ok(Some(_))) {
            self.done = true;
        }
        result
    }

    /// Reads the input to its end, so that a digest over it is complete.
    pub fn drain(&mut self) -> io::Result<()> {
        io::copy(&mut self.input, &mut io::sink()).map(|_| ())
    }

    fn read_member(&mut self) -> Result<Option<Member>, Problem> {
        let mut next = Extension::default();
        for _ in 0..=EXTENSIONS_MAX {
            let Some((header, block)) = self.read_header()? else { return Ok(None) };
            match header.kind {
                Kind::PaxNext => {
                    let data = self.read_extension(&header)?;
                    next.read_pax(&data).map_err(|problem| Problem::new(&header.name, problem))?;
                }
                // Honest ones hold a comment. Applied to every member, one record would cost as often as there are
                // members; other unpackers of images pass over them too.
                Kind::PaxGlobal => drop(self.read_extension(&header)?),
                Kind::GnuLongName => next.path = Some(header::text(&self.read_extension(&header)?).to_vec()),
                Kind::GnuLongLink => next.link = Some(header::text(&self.read_extension(&header)?).to_vec()),
                _ => return self.finish_member(header, &block, next).map(Some),
            }
        }
        Err(Problem::new(b"", "has too many extensions"))
    }

    fn read_header(&mut self) -> Result<Option<(Header, Block)>, Problem> {
        self.skip_rest().map_err(|error| Problem::read(b"", error))?;
        let Some(block) = self.read_block()? else { return Ok(None) };
        if header::is_zero(&block) {
            // The end is two zero blocks; some writers leave the second one out.
            return match self.read_block()? {
                None => Ok(None),
                Some(second) if header::is_zero(&second) => Ok(None),
                Some(_) => Err(Problem::new(b"", "goes on after its end mark")),
            };
        }
        let header = header::parse(&block).map_err(|problem| Problem::new(header::text(&block[..100]), problem))?;
        Ok(Some((header, block)))
    }

    fn read_block(&mut self) -> Result<Option<Block>, Problem> {
        let mut block = [0; BLOCK_BYTES];
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(Problem::read(b"", io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Problem::read(b"", error)),
            }
        }
        Ok(Some(block))
    }

    fn read_extension(&mut self, header: &Header) -> Result<Vec<u8>, Problem> {
        let size = u64::try_from(header.size).ok().filter(|size| *size <= EXTENSION_BYTES_MAX);
        let size = size.ok_or_else(|| Problem::new(&header.name, "has an extension that is too large"))?;
        self.begin_data(size);
        let mut data = Vec::new();
        Read::take(&mut *self, size).read_to_end(&mut data).map_err(|error| Problem::read(&header.name, error))?;
        Ok(data)
    }

    fn begin_data(&mut self, size: u64) {
        self.data_left = size;
        self.padding_left = (BLOCK_BYTES as u64 - size % BLOCK_BYTES as u64) % BLOCK_BYTES as u64;
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        let (data, padding) = (self.data_left, self.padding_left);
        (self.data_left, self.padding_left) = (0, 0);
        if io::copy(&mut (&mut self.input).take(data), &mut io::sink())? < data {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // umoci ends a layer with its last member's data: no padding, no end mark. The layer's digest holds instead.
        io::copy(&mut (&mut self.input).take(padding), &mut io::sink()).map(|_| ())
    }

    fn finish_member(&mut self, header: Header, block: &Block, next: Extension) -> Result<Member, Problem> {
        let path = next.sparse.name.clone().or(next.path).unwrap_or(header.name);
        let refuse = |problem: &str| Problem::new(&path, problem);
        let trouble = |trouble: Trouble| match trouble {
            Trouble::Wrong(problem) => Problem::new(&path, problem),
            Trouble::Read(error) => Problem::read(&path, error),
        };
        let kind = match header.kind {
            // How archives of old said it. Data behind it, which there should not be, is passed over.
            Kind::File if path.ends_with(b"/") => Kind::Folder,
            kind => kind,
        };
        let id = |pax: Option<i64>, plain: i64| u32::try_from(pax.unwrap_or(plain)).ok();
        let uid = id(next.uid, header.uid).ok_or_else(|| refuse("has an owner out of range"))?;
        let gid = id(next.gid, header.gid).ok_or_else(|| refuse("has a group out of range"))?;
        let has_data = matches!(header.kind, Kind::File | Kind::GnuSparse | Kind::Other(_));
        let stored = if has_data { next.size.unwrap_or(header.size) } else { 0 };
        let stored = u64::try_from(stored).map_err(|_| refuse("has a negative size"))?;
        // Room for arithmetic on it: no file is that large.
        if stored > i64::MAX as u64 - BLOCK_BYTES as u64 {
            return Err(refuse("has an impossible size"));
        }
        let (mut size, mut extents) = (stored, None);
        match kind {
            Kind::GnuSparse => {
                let (map, real) = sparse::read_gnu(block, &mut self.input).map_err(trouble)?;
                self.begin_data(stored);
                sparse::check(&map, real, stored).map_err(trouble)?;
                (size, extents) = (real, Some(map));
            }
            Kind::File => {
                self.begin_data(stored);
                let numbers = next.sparse.map.as_deref().unwrap_or(&next.sparse.pairs);
                let is_version_1 = next.sparse.version.0 == Some(1);
                if is_version_1 || !numbers.is_empty() {
                    let map = if is_version_1 {
                        let (map, _) = sparse::read_pax_1(self).map_err(trouble)?;
                        map
                    } else {
                        sparse::pairs(numbers).map_err(trouble)?
                    };
                    let real = next.sparse.size.and_then(|size| u64::try_from(size).ok());
                    size = real.ok_or_else(|| refuse("has holes and no size"))?;
                    sparse::check(&map, size, self.data_left).map_err(trouble)?;
                    extents = Some(map);
                }
            }
            _ => self.begin_data(stored),
        }
        Ok(Member {
            link: next.link.unwrap_or(header.link),
            kind: if kind == Kind::GnuSparse { Kind::File } else { kind },
            mode: header.mode,
            uid,
            gid,
            mtime: next.mtime.unwrap_or((header.mtime_s, 0)),
            size: if kind == Kind::Folder { 0 } else { size },
            xattrs: next.xattrs,
            extents,
            path,
        })
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.data_left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let room = usize::try_from(self.data_left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.input.read(&mut buffer[..room])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.data_left -= count as u64;
        Ok(count)
    }
}
