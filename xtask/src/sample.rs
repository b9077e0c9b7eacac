//! Sample images: real software out of Debian packages, put together by umoci.
//!
//! ```text
//! DIR/layout      an OCI layout with the tags v1, v2 (nginx that says which), exits, deaf, hungry
//! DIR/packages    the Debian packages they are made of, kept for the next time
//! ```

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::packages;
use crate::run::{output, show};

/// nginx with the libraries it links, and a shell for people who look around.
const PACKAGES: &[&str] =
    &["nginx", "libc6", "libcrypt1", "libpcre2-8-0", "libssl3", "zlib1g", "busybox-static", "base-files"];

/// Applets that get a name in /bin.
const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "env", "hostname", "id", "ip", "kill", "ls", "mount", "ps", "sleep", "stat", "stty", "tail",
    "touch", "true", "uname", "uptime", "wget", "dd", "head", "df", "ping", "nc",
];

const NGINX: &str = "daemon off;\nworker_processes 1;\nerror_log /dev/stderr warn;\npid /tmp/nginx.pid;\n\
    events { worker_connections 512; }\n\
    http {\n  access_log /dev/stdout;\n  client_body_temp_path /tmp/body;\n  proxy_temp_path /tmp/proxy;\n\
    \x20 fastcgi_temp_path /tmp/fastcgi;\n  uwsgi_temp_path /tmp/uwsgi;\n  scgi_temp_path /tmp/scgi;\n\
    \x20 server {\n    listen 8080;\n    listen [::]:8080;\n    root /srv/www;\n    add_header X-Instance $hostname;\n\
    \x20   location = /healthz { return 200 \"ok\\n\"; }\n  }\n}\n";

/// Where the images are.
pub struct Images {
    pub layout: PathBuf,
}

/// Installs what makes them, makes them, and says where they are.
pub fn ensure(folder: &Path) -> Result<()> {
    packages::ensure(&[packages::SAMPLE])?;
    let images = images(folder)?;
    println!("sample images: oci:{}:v1, and v2", std::path::absolute(images.layout)?.display());
    Ok(())
}

/// Makes all sample images in `folder`. What is there already stays.
pub fn images(folder: &Path) -> Result<Images> {
    let layout = folder.join("layout");
    if layout.join("index.json").exists() {
        return Ok(Images { layout });
    }
    fs::create_dir_all(folder)?;
    let work = folder.join("work");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    let making = work.join("layout");
    let root = work.join("root");
    unpack(&folder.join("packages"), &root)?;
    arrange(&root)?;
    let umoci = || Command::new("umoci");
    show(umoci().args(["init", "--layout"]).arg(&making))?;
    let image = |tag: &str| format!("{}:{tag}", making.display());
    show(umoci().args(["new", "--image", &image("base")]))?;
    show(umoci().args(["insert", "--image", &image("base")]).arg(&root).arg("/"))?;
    show(umoci().args([
        "config",
        "--image",
        &image("base"),
        "--config.entrypoint",
        "/usr/sbin/nginx",
        "--config.entrypoint",
        "-c",
        "--config.entrypoint",
        "/etc/nginx/vt.conf",
        "--config.exposedports",
        "8080/tcp",
        "--config.env",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        "--config.label",
        "org.opencontainers.image.title=sample",
        "--os",
        "linux",
        "--architecture",
        "amd64",
    ]))?;
    for tag in ["v1", "v2"] {
        let page = work.join(tag);
        fs::write(&page, format!("hello from Photon, release {tag}\n"))?;
        fs::set_permissions(&page, fs::Permissions::from_mode(0o644))?;
        show(umoci().args(["insert", "--image", &image("base"), "--tag", tag]).arg(&page).arg("/srv/www/index.html"))?;
    }
    for (tag, script) in [
        ("exits", "echo going down >&2; exit 7"),
        ("deaf", "echo awake; while true; do sleep 60; done"),
        ("hungry", "echo eating; tail /dev/zero"),
    ] {
        show(umoci().args([
            "config",
            "--image",
            &image("base"),
            "--tag",
            tag,
            "--clear=config.entrypoint",
            "--config.entrypoint",
            "/bin/sh",
            "--config.entrypoint",
            "-c",
            "--config.entrypoint",
            script,
        ]))?;
    }
    show(umoci().args(["config", "--image", &image("base"), "--tag", "nothing", "--clear=config.entrypoint"]))?;
    show(umoci().args(["config", "--image", &image("base"), "--tag", "foreign", "--architecture", "s390x"]))?;
    fs::rename(&making, &layout)?;
    fs::remove_dir_all(&work)?;
    Ok(Images { layout })
}

fn unpack(cache: &Path, root: &Path) -> Result<()> {
    fs::create_dir_all(cache)?;
    fs::create_dir_all(root)?;
    for package in PACKAGES {
        let find = || -> Result<Option<PathBuf>> {
            for entry in fs::read_dir(cache)? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if name.starts_with(&format!("{package}_")) && path.extension().is_some_and(|end| end == "deb") {
                    return Ok(Some(path));
                }
            }
            Ok(None)
        };
        if find()?.is_none() {
            println!("  downloading {package}");
            // Without the sandbox user apt needs no permission on the folder.
            let mut apt = Command::new("apt-get");
            apt.current_dir(cache).args(["download", "-qq", "-o", "APT::Sandbox::User=root", package]);
            if output(&mut apt).is_err() {
                output(Command::new("apt-get").args(["update", "-qq"]))?;
                output(&mut apt)?;
            }
        }
        let file = find()?.with_context(|| format!("{package} was not downloaded"))?;
        show(Command::new("dpkg-deb").arg("-x").arg(file).arg(root))?;
    }
    Ok(())
}

/// What packages do when they are installed, as far as the sample needs it.
fn arrange(root: &Path) -> Result<()> {
    // Packages of this release still have files in /bin and /lib; an image may have both.
    let busybox = ["bin/busybox", "usr/bin/busybox"].iter().map(|path| root.join(path)).find(|path| path.exists());
    let Some(busybox) = busybox else { bail!("busybox-static holds no busybox") };
    let folder = busybox.parent().context("busybox lies in a folder")?.to_owned();
    for applet in APPLETS {
        let link = folder.join(applet);
        if fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink("busybox", link)?;
        }
    }
    for folder in ["tmp", "var/log/nginx", "srv/www", "run", "proc", "sys", "dev", "etc/nginx"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::write(root.join("etc/nginx/vt.conf"), NGINX)?;
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nwww-data:x:33:33:www:/srv/www:/bin/false\n",
    )?;
    fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\nwww-data:x:33:\n")?;
    fs::remove_dir_all(root.join("usr/share/doc")).ok();
    fs::remove_dir_all(root.join("usr/share/man")).ok();
    Ok(())
}
