//! Kernel modules: what each needs, in which order to load them, and a lighter copy of each.
//!
//! A package that is unpacked but not installed has no `modules.dep`; each module says itself what it depends on, in
//! its `.modinfo` section.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What a guest cannot do without: its transport, disks, network, channel and root file systems.
pub const NEEDED: [&str; 6] = ["virtio_mmio", "virtio_blk", "virtio_net", "virtio_console", "erofs", "overlay"];
/// The deepest chain of dependencies followed; the kernel's own is about ten.
const DEPTH_MAX: usize = 32;
const SIGNATURE: &[u8] = b"~Module signature appended~\n";

/// One module, ready for an initramfs.
#[derive(Debug)]
pub struct Module {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// [`NEEDED`] with all they depend on, in an order in which they load. `folder` is searched whole, for example
/// `lib/modules/6.1.0-18-cloud-amd64`. What is built into the kernel (`modules.builtin`) is left out.
pub fn choose(folder: &Path) -> Result<Vec<Module>, String> {
    let files = index(folder)?;
    let builtin = builtin(folder);
    let mut chosen = Chosen { files: &files, builtin: &builtin, seen: BTreeSet::new(), modules: Vec::new() };
    for name in NEEDED {
        chosen.add(name, 0)?;
    }
    Ok(chosen.modules)
}

struct Chosen<'a> {
    files: &'a BTreeMap<String, PathBuf>,
    builtin: &'a BTreeSet<String>,
    seen: BTreeSet<String>,
    modules: Vec<Module>,
}

impl Chosen<'_> {
    fn add(&mut self, name: &str, depth: usize) -> Result<(), String> {
        if self.builtin.contains(name) || !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        if depth > DEPTH_MAX {
            return Err(format!("the dependencies of module {name} do not end"));
        }
        let path = self.files.get(name).ok_or_else(|| format!("the kernel has no module {name}"))?;
        let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        for needed in depends(&bytes).ok_or_else(|| format!("{} is not a module", path.display()))? {
            self.add(&needed, depth + 1)?;
        }
        self.modules.push(Module { name: name.to_owned(), bytes: lighten(bytes) });
        Ok(())
    }
}

/// Every `.ko` below `folder` by its module name (`-` and `_` are one to the kernel).
fn index(folder: &Path) -> Result<BTreeMap<String, PathBuf>, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for entry in entries.flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                Ok(kind) if kind.is_file() => {
                    if let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".ko")) {
                        files.insert(name.replace('-', "_"), path);
                    }
                }
                _ => {}
            }
        }
    }
    Ok(files)
}

fn builtin(folder: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
    let name = |line: &str| Some(line.rsplit('/').next()?.strip_suffix(".ko")?.replace('-', "_"));
    text.lines().filter_map(name).collect()
}

/// The names in `depends=` of a module's `.modinfo`; `None` when these bytes are not a module.
fn depends(module: &[u8]) -> Option<Vec<String>> {
    let info = section(module, ".modinfo")?;
    let bytes = module.get(info.start..info.start + info.length)?;
    let line = bytes.split(|&byte| byte == 0).find_map(|line| line.strip_prefix(b"depends="))?;
    let names = std::str::from_utf8(line).ok()?;
    Some(names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect())
}

/// Drops what costs time at each load and is of no use here: the signature (the initramfs is ours, and the guest's
/// keyring is left empty to save its own time) and the type information for BPF, which the kernel finds by its
/// section's name alone.
fn lighten(mut module: Vec<u8>) -> Vec<u8> {
    if let Some(body) = module.strip_suffix(SIGNATURE) {
        // Before the mark: 12 bytes of which the last four are the signature's length, big-endian.
        let length = body.last_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes) as usize);
        if let Some(end) = body.len().checked_sub(12 + length) {
            module.truncate(end);
        }
    }
    let types = section(&module, ".BTF").map(|section| section.name_at);
    if let Some(name) = types.and_then(|at| module.get_mut(at..at + 4)) {
        name.copy_from_slice(b".xtf");
    }
    module
}

struct Section {
    /// Where its name stands in the file.
    name_at: usize,
    start: usize,
    length: usize,
}

/// A section of a little-endian ELF64 file by its name.
fn section(elf: &[u8], name: &str) -> Option<Section> {
    let short = |at: usize| Some(usize::from(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?)));
    let word = |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?) as usize);
    let long = |at: usize| usize::try_from(u64::from_le_bytes(elf.get(at..at.checked_add(8)?)?.try_into().ok()?)).ok();
    // 64 bits, little-endian.
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, size, count, names) = (long(40)?, short(58)?, short(60)?, short(62)?);
    let header = |number: usize| table.checked_add(number.checked_mul(size)?).filter(|at| at + 64 <= elf.len());
    let names_at = long(header(names)? + 24)?;
    for number in 0..count {
        let at = header(number)?;
        let name_at = names_at.checked_add(word(at)?)?;
        let found = elf.get(name_at..name_at.checked_add(name.len() + 1)?);
        if found.is_some_and(|found| found[..name.len()] == *name.as_bytes() && found[name.len()] == 0) {
            let (start, length) = (long(at + 24)?, long(at + 32)?);
            return (start.checked_add(length)? <= elf.len()).then_some(Section { name_at, start, length });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module with the given `.modinfo`, a `.BTF` section and a signature.
    fn module(info: &[u8]) -> Vec<u8> {
        let names = b"\0.modinfo\0.BTF\0.shstrtab\0";
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let info_at = elf.len();
        elf.extend_from_slice(info);
        let names_at = elf.len();
        elf.extend_from_slice(names);
        let table = elf.len();
        for (name, start, length) in [(0, 0, 0), (1, info_at, info.len()), (10, 64, 4), (15, names_at, names.len())] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&(name as u32).to_le_bytes());
            header[24..32].copy_from_slice(&(start as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(length as u64).to_le_bytes());
            elf.extend_from_slice(&header);
        }
        elf[40..48].copy_from_slice(&(table as u64).to_le_bytes());
        elf[58..60].copy_from_slice(&64_u16.to_le_bytes());
        elf[60..62].copy_from_slice(&4_u16.to_le_bytes());
        elf[62..64].copy_from_slice(&3_u16.to_le_bytes());
        elf
    }

    fn signed(module: &[u8]) -> Vec<u8> {
        [module, &[9; 100], &[0, 0, 2, 0, 0, 0, 0, 0], &100_u32.to_be_bytes(), SIGNATURE].concat()
    }

    #[test]
    fn dependencies_load_before_those_who_need_them() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, needs: &str| {
            let info = format!("license=GPL\0depends={needs}\0name={name}\0");
            fs::write(folder.path().join(format!("{name}.ko")), signed(&module(info.as_bytes()))).unwrap();
        };
        fs::create_dir(folder.path().join("deep")).unwrap();
        write("deep/virtio-ring", "");
        write("virtio", "virtio_ring");
        write("virtio_mmio", "virtio,virtio-ring");
        for name in ["virtio_blk", "virtio_net", "virtio_console"] {
            write(name, "virtio");
        }
        write("erofs", "lz4_decompress");
        fs::write(folder.path().join("modules.builtin"), "kernel/fs/overlay.ko\nkernel/lib/lz4_decompress.ko\n")
            .unwrap();
        let chosen = choose(folder.path()).unwrap();
        let names: Vec<_> = chosen.iter().map(|module| module.name.as_str()).collect();
        let wanted = ["virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "virtio_net", "virtio_console", "erofs"];
        assert_eq!(names, wanted);
        fs::remove_file(folder.path().join("virtio_net.ko")).unwrap();
        assert_eq!(choose(folder.path()).unwrap_err(), "the kernel has no module virtio_net");
    }

    #[test]
    fn a_light_module_has_neither_signature_nor_types() {
        let plain = module(b"depends=\0");
        let light = lighten(signed(&plain));
        assert_eq!(light.len(), plain.len());
        assert!(section(&light, ".BTF").is_none() && section(&light, ".modinfo").is_some());
        assert_eq!(depends(&light), Some(vec![]));
    }

    #[test]
    fn broken_modules_never_panic() {
        let good = signed(&module(b"depends=a,b\0"));
        for at in 0..good.len() {
            let _ = depends(&good[..at]);
            let mut flipped = good.clone();
            flipped[at] ^= 0xff;
            let _ = depends(&flipped);
            let _ = lighten(flipped);
        }
    }
}
