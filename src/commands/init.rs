//! `sysctr init DIR [IMAGE]`: the first `/exports` of an image, to be edited and copied into it.

use std::{fs, io::Write as _, path::Path};

use anyhow::{Context as _, Result, bail};
use oci_spec::image::ImageConfiguration;

use super::Context;
use crate::cli::InitArgs;
use sysctr::{
    host::{ostree::Store, settings, source},
    model::{
        fault::{Code, Fault},
        init,
        name::ContainerName,
        reference::ImageSource,
    },
};

/// Writes the files. None that is there is touched.
pub fn run(context: &Context, args: &InitArgs) -> Result<()> {
    let image = args.image.as_ref().map(|image| context.named(image)).transpose()?;
    let config = image.as_ref().map(|image| config(context, image)).transpose()?;
    let folder = args.dir.join("exports");
    let files = init::exports(&name(args, image.as_ref())?, config.as_ref());
    if let Some(file) = files.keys().map(|file| folder.join(file)).find(|file| file.exists()) {
        let message = format!("{} is there already, and nothing was written", file.display());
        bail!(Fault::new(Code::Failed, message).hint("`sysctr lint` says what is wrong with it"));
    }
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    for (file, text) in &files {
        let path = folder.join(file);
        let written = fs::File::create_new(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("writing {}", path.display()))?;
    }
    let paths: Vec<String> = files.keys().map(|file| folder.join(file).display().to_string()).collect();
    context.output.result(&serde_json::json!({"files": paths}), || {
        format!("wrote {}; `COPY exports /exports` in a Containerfile takes them into the image", paths.join(", "))
    })
}

/// The image's last part, or that of the folder.
fn name(args: &InitArgs, image: Option<&ImageSource>) -> Result<ContainerName> {
    let folder = || {
        let real = std::path::absolute(&args.dir).ok()?;
        real.file_name().map(|name| name.to_string_lossy().to_lowercase())
    };
    let text = image.map(|image| image.repository_name().to_owned()).or_else(folder);
    text.as_deref().unwrap_or("image").parse().or_else(|_| "image".parse()).context("naming the container")
}

/// The config of an image in the store, or from where it comes; nothing is pulled.
fn config(context: &Context, image: &ImageSource) -> Result<ImageConfiguration> {
    let stored = if Path::new(&context.root).is_dir() { Store::open(&context.root)? } else { None };
    let stored = stored.as_ref().map(|store| store.find(image)).transpose()?.flatten();
    match stored {
        Some(stored) => Ok(stored.config),
        None => {
            let root = context.folder()?;
            Ok(source::resolve(image, &root, &settings::load(&root)?)
                .with_context(|| format!("looking at {image}"))?
                .config)
        }
    }
}
