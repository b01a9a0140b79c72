//! `hybrid-peer inspect`: a manifest for people.

use crate::args;
use crate::failure::Failure;
use crate::get::tls_trust;
use crate::print_line;
use hybrid_manifest::Manifest;
use hybrid_peer::Config;
use hybrid_units::ByteCount;
use std::process::ExitCode;

pub(crate) async fn run(args: args::Inspect) -> Result<ExitCode, Failure> {
    let mut config = Config::default();
    config.tls_trust = tls_trust(&args.tls)?;
    let signed = hybrid_peer::inspect(&args.url, &config).await?;
    let manifest = signed.manifest();
    if args.json {
        print_line(&manifest.to_json())?;
    } else {
        for (name, value) in rows(manifest) {
            print_line(&format!("{name:<12}  {value}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One property a row.
fn rows(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let layout = manifest.layout();
    let ids = if manifest.part_ids().is_some() { "in the manifest" } else { "asked of the server as parts arrive" };
    let mut rows = vec![
        ("name", manifest.name().to_owned()),
        ("content", manifest.content().to_string()),
        ("media type", manifest.media_type().to_owned()),
        ("kind", manifest.kind().as_str().to_owned()),
        ("length", format!("{} ({} bytes)", ByteCount::new(layout.total_len()), layout.total_len())),
        ("parts", format!("{} of {} bytes", layout.part_count(), layout.part_len().as_u32())),
        ("part ids", ids.to_owned()),
        ("segments", layout.segment_count().to_string()),
        ("epoch", manifest.epoch().to_string()),
    ];
    rows.extend(
        manifest
            .keys()
            .iter()
            .enumerate()
            .map(|(index, key)| (if index == 0 { "signed by" } else { "or by" }, key.to_string())),
    );
    rows
}
