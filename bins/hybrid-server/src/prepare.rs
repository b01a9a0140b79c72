//! `hybrid-server prepare`.

use crate::args::Prepare;
use crate::failure::Failure;
use crate::print_line;
use crate::settings::default_state;
use hybrid_manifest::{ContentId, Manifest, ManifestSpec, Prepared, SignedManifest};
use hybrid_origin::{Classes, StateFolder, media_type, prepare_file};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

pub(crate) fn run(args: &Prepare) -> Result<(), Failure> {
    let prepared = prepare(&args.file)?;
    if let Some(output) = &args.output {
        write_manifest(args, output, &prepared)?;
    }
    print_line(&report(args, &prepared))
}

fn prepare(path: &Path) -> Result<Prepared, Failure> {
    let name = path.display();
    let unreadable = |error: std::io::Error| Failure::file(format!("{name}: {error}"));
    // Opening anything else but a file may wait for ever, and reading it may never end.
    let metadata = path.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(Failure::file(format!("{name} is a folder")).hint("name one file; `serve` prepares whole folders"));
    }
    if !metadata.is_file() {
        return Err(Failure::file(format!("{name} is a pipe, socket or device")).hint("name a file"));
    }
    let file = File::open(path).map_err(unreadable)?;
    // As the server cuts it, unless the settings say otherwise.
    let parts = Classes::default().choose(&media_type(path), &format!("/{}", path.display())).parts;
    prepare_file(&file, parts).map_err(|error| Failure::file(format!("{name}: {error}")))
}

fn content_id(prepared: &Prepared) -> ContentId {
    let hash = prepared.segment_hashes().first().expect("a static content has one segment");
    ContentId::from_bytes(*hash.as_bytes())
}

fn report(args: &Prepare, prepared: &Prepared) -> String {
    let (layout, content) = (prepared.layout(), content_id(prepared));
    if args.json {
        let object = serde_json::json!({
            "event": "prepared",
            "file": args.file.to_string_lossy(),
            "content": content.to_string(),
            "total_bytes": layout.total_len(),
            "part_bytes": layout.part_len().as_u32(),
            "parts": layout.part_count(),
            "manifest": args.output.as_ref().map(|output| output.to_string_lossy()),
        });
        return object.to_string();
    }
    let mut text = format!(
        "{content}  {}\npart length  {} bytes\nparts  {}",
        args.file.display(),
        layout.part_len().as_u32(),
        layout.part_count()
    );
    if let Some(output) = &args.output {
        text.push_str(&format!("\nmanifest  {}", output.display()));
    }
    text
}

fn write_manifest(args: &Prepare, output: &Path, prepared: &Prepared) -> Result<(), Failure> {
    let state = match &args.state {
        Some(state) => state.clone(),
        None => default_state(|name| std::env::var_os(name).map(PathBuf::from))?,
    };
    let identity = StateFolder::open(&state)?.identity()?;
    let name = args.file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let manifest = Manifest::new(ManifestSpec::new(name), prepared, identity.server_key());
    let signed = manifest.and_then(|manifest| SignedManifest::sign(manifest, identity.signing_key()));
    let signed = signed.map_err(|error| Failure::file(format!("{}: {error}", args.file.display())))?;
    let mut options = std::fs::OpenOptions::new();
    let options =
        if args.force { options.write(true).create(true).truncate(true) } else { options.write(true).create_new(true) };
    let written = options.open(output).and_then(|mut file| file.write_all(&signed.encode()));
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::exists(output),
        _ => Failure::file(format!("{}: {error}", output.display())),
    })
}
