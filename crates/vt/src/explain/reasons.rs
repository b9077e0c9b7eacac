//! What each reason code on a row means. In order of the code.

pub struct Reason {
    pub code: &'static str,
    pub means: &'static str,
    pub remedies: &'static [&'static str],
}

const fn reason(code: &'static str, means: &'static str, remedies: &'static [&'static str]) -> Reason {
    Reason { code, means, remedies }
}

const WAIT: &[&str] = &["Nothing: it goes on by itself. vt wait NAME   tells when."];

pub const ALL: &[Reason] = &[
    reason(
        "boot_timeout",
        "The guest did not report in the time it has for booting.",
        &[
            "vt logs --vm NAME   may show how far it came.",
            "vt doctor   says whether guests run under KVM or emulated, which is slow.",
        ],
    ),
    reason("booting", "The guest boots.", WAIT),
    reason(
        "broken",
        "The last turn over this row failed; it is tried again with growing pauses.",
        &["The message says what failed. vt why NAME"],
    ),
    reason(
        "config_parse_failed",
        "The guest could not read what the host sent it: their versions do not fit.",
        &["Restart `vt up` with the version that is installed; it brings its own guest program."],
    ),
    reason("converging", "The last change has not been looked at yet.", WAIT),
    reason(
        "crash_loop_backoff",
        "The process ended again and again; the next start waits.",
        &["vt logs --vm NAME   shows its last words.", "Mend the program or its settings and deploy again."],
    ),
    reason(
        "device_taken",
        "A network device with a name that this cloud needs belongs to something else.",
        &["Remove it, or give this cloud another tag."],
    ),
    reason(
        "disk_full",
        "The disk of the node is full.",
        &[
            "Free space below the data folder, or move it with --data-dir.",
            "vt app list   shows apps whose images could go.",
        ],
    ),
    reason("draining", "It finishes what it has before it stops.", WAIT),
    reason(
        "exec_limit_reached",
        "Too many commands run in this instance at once.",
        &["End one of them; or use another instance with --vm."],
    ),
    reason(
        "exec_refused",
        "The guest could not start the command.",
        &["The message says why: often the program does not exist in the image."],
    ),
    reason(
        "foreign_firewall",
        "Another firewall on the node drops traffic of guests.",
        &["Let it pass what the message names."],
    ),
    reason("generation_stale", "A report was about an older wish.", WAIT),
    reason(
        "guest_init_protocol_mismatch",
        "The program inside the guest speaks another version than the host.",
        &["Restart `vt up`; new instances boot with its own."],
    ),
    reason(
        "guest_unreachable",
        "The guest does not answer over its channel.",
        &["vt why NAME; it is replaced when it stays so."],
    ),
    reason(
        "healthcheck_failed",
        "The health check fails: the port does not answer, or not as it must.",
        &[
            "vt logs --vm NAME",
            "vt exec --vm NAME -- CMD   looks from the inside.",
            "Compare port and path of the health check in vt.toml with what the program listens on.",
        ],
    ),
    reason("healthcheck_pending", "The process runs; its health check has not passed yet.", WAIT),
    reason(
        "image_layer_invalid",
        "A layer of the image is damaged, or holds names that reach outside of it.",
        &["Build the image again; the message names the entry."],
    ),
    reason(
        "image_pull_failed",
        "The image cannot be fetched.",
        &[
            "Check its name and tag.",
            "Give credentials where the registry wants them.",
            "For an image on this machine: oci:DIR:TAG, oci-archive:FILE or docker-archive:FILE.",
        ],
    ),
    reason(
        "image_pull_timeout",
        "Fetching the image took longer than it may: 5 minutes for a layer, 30 in all.",
        &["Try again where the registry is near, or make the image smaller."],
    ),
    reason("image_pulling", "The image is being fetched.", WAIT),
    reason(
        "image_too_large",
        "The image is above 10 GiB packed, 50 GiB unpacked or 128 layers.",
        &["Make it smaller."],
    ),
    reason(
        "instance_failed",
        "An instance that the deploy needs does not come up.",
        &["vt why NAME of the instance; vt logs --vm NAME"],
    ),
    reason(
        "ipam_exhausted",
        "The project's network has no free address.",
        &["Remove instances: an IPv4 network of a project holds 253 at once."],
    ),
    reason(
        "jail_broken",
        "The process of a machine was found outside its jail and was ended.",
        &["Look at what else on the node moves processes or changes cgroups."],
    ),
    reason(
        "jail_failed",
        "The machine's process could not be locked into its jail, and so was not started.",
        &["vt doctor   looks at cgroups and rights."],
    ),
    reason(
        "kernel_absent",
        "The guest kernel is not here yet.",
        &["vt up   fetches it by package name; it needs the package sources once."],
    ),
    reason(
        "kernel_fetch_failed",
        "The guest kernel's package could not be fetched.",
        &["Check that apt-get update works on the node."],
    ),
    reason(
        "kernel_unpack_failed",
        "The guest kernel's package could not be unpacked.",
        &["Free space below the data folder and start again."],
    ),
    reason(
        "listen_failed",
        "The ingress cannot listen on the port of this route.",
        &["Something else holds the port: ss -ltnp   shows it.", "Choose another listen_port."],
    ),
    reason(
        "mount_failed",
        "The guest could not put its disks together.",
        &["vt why NAME; a new instance gets new disks."],
    ),
    reason("net_config_failed", "The guest could not set up its network.", &["vt why NAME; vt doctor"]),
    reason(
        "network_setup_failed",
        "The node could not give the instance its network.",
        &["vt doctor   looks at nftables, IPv6 and rights."],
    ),
    reason("nft_missing", "The program nft is not installed on the node.", &["apt-get install nftables"]),
    reason(
        "no_backends",
        "The route has no ready instance behind it.",
        &["vt status; it takes traffic as soon as one is ready."],
    ),
    reason(
        "no_capacity_memory",
        "No node has the memory free.",
        &["vt scale PROCESS=FEWER, or less memory in vt.toml.", "vt node list"],
    ),
    reason(
        "no_entrypoint",
        "Neither the image nor the manifest says what to run.",
        &["Write under [processes.NAME]:  command = [\"/path/to/program\"]"],
    ),
    reason("no_nodes_active", "No node takes instances now.", &["vt node list"]),
    reason("node_draining", "The node is being emptied.", WAIT),
    reason("not_root", "This needs root's rights on the node.", &["Start `vt up` as root."]),
    reason(
        "oom_killed",
        "The process used more memory than its limit and was killed.",
        &["Raise memory under [processes.NAME] in vt.toml.", "vt logs --vm NAME"],
    ),
    reason("overloaded", "The cloud has too much to do at once.", &["Try again in a moment."]),
    reason("program_failed", "A program that the node needs did not work.", &["The message repeats what it said."]),
    reason("program_missing", "A program that the node needs is not installed.", &["vt doctor   names the package."]),
    reason("release_missing", "The release that this needs is gone.", &["vt releases; vt deploy"]),
    reason("removing", "It is being removed, with what lives in it.", WAIT),
    reason("revision_compacted", "The history that was asked for is gone.", &["Read again from the start."]),
    reason("rolling", "Instances of the new release come up, those of the old one go.", WAIT),
    reason(
        "rootfs_build_failed",
        "The image's root file system could not be built.",
        &["The message says which step failed; check the disk with vt doctor."],
    ),
    reason(
        "row_quarantined",
        "An event of this row could not be applied. The row stays as it was; others go on.",
        &["vt admin replay   shows what is wrong."],
    ),
    reason("secrets_injection_failed", "The secrets could not be given to the guest.", &["vt why NAME"]),
    reason(
        "secrets_missing",
        "The process requires secrets and the env has none.",
        &["vt secrets set KEY=-   then vt deploy", "Or write secrets = { required = false }."],
    ),
    reason(
        "secrets_write_failed",
        "The guest could not write the secrets file.",
        &["The bundle may be too large; vt secrets list"],
    ),
    reason("starting", "The process is being started.", WAIT),
    reason(
        "store_copy_unfinished",
        "A copy into this store was begun and not finished, so it holds a part of another.",
        &["Empty it and run vt store migrate again.", "Or start on the store that was copied."],
    ),
    reason(
        "store_full",
        "The disk of the store is full; nothing was changed.",
        &["Make room on the disk of the store; it goes on by itself."],
    ),
    reason(
        "store_of_another_cloud",
        "The store belongs to another installation: two clouds on one store would undo each other's work.",
        &["vt up --data-dir DIR   with the folder that belongs to it.", "vt up --store URL   with a store of its own."],
    ),
    reason(
        "store_open_failed",
        "The store cannot be opened.",
        &["The message says why; nothing was changed.", "vt config show --cloud --origin   says which store is meant."],
    ),
    reason(
        "store_unavailable",
        "The store does not answer. The cloud waits for it, and machines go on.",
        &[
            "Look at what `vt up` prints, and at the disk below its data folder.",
            "vt store status --endpoints HOST:PORT   looks at the members of a store that others serve.",
        ],
    ),
    reason("superseded", "A newer deploy took over.", &["vt status   shows what runs now."]),
    reason(
        "sysctl_read_only",
        "The node's network settings cannot be changed.",
        &["Let the machine or container that runs `vt up` write /proc/sys/net."],
    ),
    reason("terminated_by_operator", "Someone stopped it.", &["vt events   says who."]),
    reason("token_expired", "The token is past its time.", &["vt token create NAME   makes another."]),
    reason("traffic_moving", "The new instances are ready; traffic moves to them.", WAIT),
    reason("tun_missing", "The node has no /dev/net/tun, which instances need for their network.", &["modprobe tun"]),
    reason(
        "turn_failed",
        "The last turn over this row failed; it is tried again with growing pauses.",
        &["The message says what failed. vt why NAME"],
    ),
    reason(
        "vm_start_failed",
        "The hypervisor did not start the machine.",
        &["The message repeats its last words. vt doctor"],
    ),
    reason(
        "vmm_failed",
        "The hypervisor's process ended with an error.",
        &["A new instance is started. vt why NAME   repeats its last words."],
    ),
    reason(
        "vmm_killed",
        "The hypervisor's process was killed from outside.",
        &[
            "A new instance is started. Look at who kills processes on the node; the kernel's memory killer is in dmesg.",
        ],
    ),
    reason("vmm_vanished", "The hypervisor's process is gone without a trace of why.", &["A new instance is started."]),
    reason("working", "The cloud is at it.", WAIT),
    reason(
        "workload_crashed",
        "The process ended although it should run.",
        &["vt logs --vm NAME   shows its last words.", "restart = { policy = \"never\" }   for what is meant to end."],
    ),
    reason(
        "workload_start_failed",
        "The process could not be started: the program is missing, not executable, or its user or folder does not exist.",
        &["Check command, user and workdir in vt.toml against the image."],
    ),
];
