//! From a wish for an instance to all that its node needs to know.

use std::collections::BTreeMap;

use model::manifest::Process;
use model::{Code, Error, Level, Row};
use reconcile::kind::read;
use reconcile::{Admission, Admitted, Wish};

use super::contract::{Address, Bundle, Rest, Spec, Wanted};
use crate::{project, release, secret};

/// Places in a network for instances: 0 is the network, 1 the gateway, 255 the broadcast address.
const OFFSETS: std::ops::RangeInclusive<u8> = 2..=254;

pub async fn admit(cx: Admission<'_>, wish: Wish<'_>) -> Result<Admitted, Error> {
    let wanted: Wanted = read("spec", &wish.spec)?;
    if let Some(before) = wish.before {
        let before: Spec = read("spec", &before.spec)?;
        if (&before.release, &before.process) != (&wanted.release, &wanted.process) {
            let message = "an instance keeps its release and its process; only `state` may change";
            return Err(Error::invalid("spec", message).hint("vt deploy"));
        }
        return Admitted::spec(&Spec { state: wanted.state, ..before });
    }
    let app = wish.scope.at(Level::App);
    let found = cx.door.get(&wanted.release).await?;
    let found = found.filter(|row| row.kind == "release" && Some(&row.scope) == app.as_ref());
    let found = found.ok_or_else(|| Error {
        field: Some("spec.release".into()),
        ..Error::not_found(format!("release {}", wanted.release))
    })?;
    let release: release::Spec = read("spec", &found.spec)?;
    let process = release.manifest.processes.get(&wanted.process).ok_or_else(|| {
        let known: Vec<_> = release.manifest.processes.keys().cloned().collect();
        let message = format!("release {} has no process `{}`", found.name, wanted.process);
        Error::invalid("spec.process", message).hint(format!("it has: {}", known.join(", ")))
    })?;
    let secrets = bundle(cx, &wish).await?;
    if process.secrets.required && secrets.is_none() {
        let message = format!("process `{}` requires secrets, and this env has none", wanted.process);
        return Err(Error::new(Code::PreconditionFailed, message)
            .hint("vt secrets set KEY=-")
            .reason("secrets_missing"));
    }
    let (network, claim) = address(cx, &wish).await?;
    let names = scope_names(cx, &wish).await?;
    let spec = expand(&wanted, &release, process, secrets, network, wish.name, &names);
    Ok(Admitted { claims: vec![claim], ..Admitted::spec(&spec)? })
}

async fn bundle(cx: Admission<'_>, wish: &Wish<'_>) -> Result<Option<Bundle>, Error> {
    let store = &**cx.door.store();
    let found = reconcile::rows::list(store, wish.scope, "secret", None, 1, |row| !row.deleting()).await?;
    let Some(row) = found.rows.first() else { return Ok(None) };
    let spec: secret::Spec = read("spec", &row.spec)?;
    Ok(Some(Bundle { id: row.id.clone(), version: spec.version }))
}

/// A free place in the project's network, with the claim that keeps it. Places go round, so that one that was just
/// given back is the last to be given out again.
async fn address(cx: Admission<'_>, wish: &Wish<'_>) -> Result<(Address, String), Error> {
    let project = wish.scope.id(Level::Project).ok_or_else(|| Error::internal("an instance lives in a project"))?;
    let row: Option<Row> = cx.door.get(project).await?;
    let row = row.ok_or_else(|| Error::not_found(format!("project {project}")))?;
    let spec: project::Spec = read("spec", &row.spec)?;
    let number = spec.network.ok_or_else(|| Error::internal(format!("project {project} has no network")))?;
    let prefix = format!("address/{project}/");
    let taken: BTreeMap<u8, model::Id> = cx
        .door
        .claims(&prefix)
        .await?
        .into_iter()
        .filter_map(|(claim, holder)| Some((claim.rsplit('/').next()?.parse().ok()?, holder)))
        .collect();
    let newest = taken.iter().max_by(|a, b| a.1.cmp(b.1)).map_or(*OFFSETS.start() - 1, |(offset, _)| *offset);
    let free = OFFSETS.filter(|offset| *offset > newest).chain(OFFSETS).find(|offset| !taken.contains_key(offset));
    let offset = free.ok_or_else(|| {
        let message = "all 253 addresses of the project's network are in use";
        Error::new(Code::QuotaExceeded, message).hint("scale something down").reason("ipam_exhausted")
    })?;
    Ok((Address { number, offset }, format!("{prefix}{offset:03}")))
}

/// Names of the app and env, for the process to know where it runs.
async fn scope_names(cx: Admission<'_>, wish: &Wish<'_>) -> Result<[(&'static str, String); 2], Error> {
    let name = async |level| -> Result<String, Error> {
        let Some(id) = wish.scope.id(level) else { return Ok(String::new()) };
        Ok(cx.door.get(id).await?.map_or_else(String::new, |row| row.name))
    };
    Ok([("VT_APP", name(Level::App).await?), ("VT_ENV", name(Level::Env).await?)])
}

/// The image's own config, overridden by the manifest, overridden by nothing.
pub fn expand(
    wanted: &Wanted,
    release: &release::Spec,
    process: &Process,
    secrets: Option<Bundle>,
    network: Address,
    name: &str,
    scope: &[(&str, String)],
) -> Spec {
    let image = &release.resolved.config;
    let effective = process.effective(&release.manifest.env);
    let argv = if process.command.is_empty() {
        image.entrypoint.iter().chain(&image.cmd).cloned().collect()
    } else {
        process.command.clone()
    };
    let mut env: BTreeMap<String, String> =
        image.env.iter().filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    env.extend(scope.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    env.insert("VT_PROCESS".into(), wanted.process.clone());
    env.insert("VT_INSTANCE".into(), name.to_owned());
    env.insert("VT_RELEASE".into(), release.number.to_string());
    env.extend(effective.vars.clone());
    let or_image =
        |own: &Option<String>, image: &Option<String>| own.clone().or_else(|| image.clone()).unwrap_or_default();
    Spec {
        release: wanted.release.clone(),
        process: wanted.process.clone(),
        state: wanted.state,
        rest: (process.scaling.min == 0)
            .then_some(Rest { idle_seconds: process.scaling.idle_seconds, warm_seconds: process.scaling.warm_seconds }),
        image: release.resolved.digest.to_string(),
        argv,
        env: env.into_iter().map(|(key, value)| format!("{key}={value}")).collect(),
        workdir: or_image(&effective.workdir, &image.workdir),
        user: or_image(&effective.user, &image.user),
        prestart: effective.prestart.clone(),
        prestart_timeout_seconds: effective.prestart_timeout_seconds,
        restart: process.restart,
        cpu: process.resources.cpu,
        memory: process.resources.memory,
        disk: process.resources.disk,
        ports: process.ports.clone(),
        health_port: process.health.as_ref().and_then(|health| process.port(&health.port)).map(|port| port.internal),
        health: process.health.clone(),
        secrets,
        secrets_required: process.secrets.required,
        network,
    }
}
