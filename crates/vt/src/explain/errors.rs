//! What each error code means.

use model::Code;

pub struct Text {
    pub means: &'static str,
    pub causes: &'static [&'static str],
    pub remedies: &'static [&'static str],
}

/// Every code has a text: a new code does not compile without one.
pub const fn text(code: Code) -> Text {
    match code {
        Code::InvalidArgument => Text {
            means: "Something in the request or on the command line is not as it must be. Nothing was changed.",
            causes: &["A field has a wrong name, type or amount.", "A manifest has a key that there is not."],
            remedies: &[
                "The message names the field, and for a manifest the line; `try` shows the nearest right form.",
                "vt manifest check   looks at vt.toml without a network.",
            ],
        },
        Code::Unauthenticated => Text {
            means: "The cloud does not know who is asking: no token was sent, or it is unknown, deleted or expired.",
            causes: &["The context belongs to another cloud.", "The token was deleted or is past its time."],
            remedies: &[
                "vt config show --origin   says which token is used.",
                "VT_TOKEN or --token-file gives another.",
                "The admin token of a cloud lies in its data folder, readable by who started it.",
            ],
        },
        Code::Denied => Text {
            means: "The token is known and may not do this.",
            causes: &["It is read-only.", "The act belongs to the whole cloud and the token to one project."],
            remedies: &["vt auth whoami   says what the token may do.", "Ask who owns the cloud for another token."],
        },
        Code::NotFound => Text {
            means: "It does not exist, or it belongs to someone else: the two are not told apart on purpose.",
            causes: &["A name is mistyped.", "The wrong app, env, project or context is meant.", "It was removed."],
            remedies: &[
                "vt status and vt KIND list   show what is there.",
                "vt config show --origin   says which app and env are meant.",
                "vt events   shows what was removed.",
            ],
        },
        Code::Conflict => Text {
            means: "It cannot be done as things stand: a name is taken, or a newer act came first.",
            causes: &[
                "A host name belongs to another route.",
                "Something of that name exists.",
                "A deploy was overtaken by a newer one.",
            ],
            remedies: &["vt KIND list   shows what holds the name.", "Choose another name, or remove what holds it."],
        },
        Code::VersionConflict => Text {
            means: "Someone changed it after you read it, so your change was not made over theirs.",
            causes: &["Two people or programs change the same row."],
            remedies: &["Look at it again with show, then repeat the command."],
        },
        Code::IdempotencyKeyReuse => Text {
            means: "The same idempotency key came with another request before.",
            causes: &["A program reuses keys."],
            remedies: &[
                "Send a fresh Idempotency-Key with each new request, and the same one only with its repetitions.",
            ],
        },
        Code::QuotaExceeded => Text {
            means: "A limit of the project would be passed.",
            causes: &["More instances, memory or streams than the project may have."],
            remedies: &["Remove what is not needed: vt status, vt vm list.", "Ask who owns the cloud for more."],
        },
        Code::PreconditionFailed => Text {
            means: "Something that has to hold first does not.",
            causes: &["The history that was asked for is gone.", "The row is not in a state that allows it."],
            remedies: &["The message names the condition. Read again from the start where a history is gone."],
        },
        Code::TooLarge => Text {
            means: "A body, an image or a value is larger than its limit.",
            causes: &[
                "An image is above 10 GiB packed or 50 GiB unpacked, or has more than 128 layers.",
                "A JSON body is above 1 MiB.",
            ],
            remedies: &["Make it smaller; the message names the limit."],
        },
        Code::RateLimited => Text {
            means: "Too many requests in too short a time, or too many at once.",
            causes: &["A program asks in a tight loop instead of watching."],
            remedies: &[
                "Wait as long as Retry-After says; vt does so by itself.",
                "Watch instead of asking again: vt wait, vt events -f.",
            ],
        },
        Code::Unplaceable => Text {
            means: "No node has room for it.",
            causes: &[
                "The memory it needs is not free on any node; memory is never overcommitted.",
                "No node is ready.",
            ],
            remedies: &[
                "vt why NAME   says what it needs and what the best node has.",
                "vt scale web=1, or less memory in the manifest.",
                "vt node list   shows the nodes.",
            ],
        },
        Code::Failed => Text {
            means: "It was tried and did not work.",
            causes: &["An image cannot be pulled, a program ends at once, a health check never passes."],
            remedies: &[
                "vt why NAME   names the reason, since when, and what would mend it.",
                "vt logs   shows what the program said.",
            ],
        },
        Code::Unavailable => Text {
            means: "The cloud, or a part of it, does not answer now.",
            causes: &[
                "`vt up` is not running.",
                "The address or the authority belongs to another cloud.",
                "A guest is still booting.",
            ],
            remedies: &[
                "vt up   starts the cloud here.",
                "vt config show --origin   says which address is used.",
                "vt doctor   looks at both.",
            ],
        },
        Code::ViewBehind => Text {
            means: "The change was accepted, but the view that was asked has not caught up with it yet.",
            causes: &["The control plane is very busy."],
            remedies: &["Ask again: the change is kept."],
        },
        Code::DeadlineExceeded => Text {
            means: "The time was up before it was as wished. It goes on: nothing was cancelled.",
            causes: &["An image is large, or a machine slow.", "Something is in the way."],
            remedies: &["vt why NAME   says what it waits for.", "vt wait NAME --timeout 15m   waits longer."],
        },
        Code::Internal => Text {
            means: "A mistake in the program itself.",
            causes: &["An answer could not be read: the versions of vt and of the cloud may differ."],
            remedies: &[
                "vt version   shows both.",
                "Report it with the request id that the message shows, and what `vt up` printed.",
            ],
        },
    }
}
