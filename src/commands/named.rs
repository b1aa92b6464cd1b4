//! What an image's short name stands for, as containers-registries.conf(5) has it.

use anyhow::{Result, bail};

use super::Context;
use sysctr::{
    host::{ostree::Store, policy, registries::Registries, settings, source},
    model::{
        fault::{Code, Fault},
        reference::{ImageName, ImageSource},
        registries_conf::Mode,
    },
};

impl Context {
    /// The image's full name: as it was given, its alias, the one that a person chooses, or the first that the store or a registry has.
    pub fn named(&self, image: &ImageName) -> Result<ImageSource> {
        let short = match image {
            ImageName::Full(source) => return Ok(source.clone()),
            ImageName::Short(short) => short,
        };
        let root = self.folder()?;
        let registries = Registries::load(&root)?;
        let names = registries.long_names(short);
        let sources = names.iter().map(|name| Ok(name.parse()?)).collect::<Result<Vec<ImageSource>>>()?;
        let ambiguous = || format!("{short} may be {}", names.join(" or "));
        match sources.as_slice() {
            [] => {
                let message = format!("{short:?} does not name its registry, and registries.conf has no alias for it");
                bail!(Fault::new(Code::Usage, message).hint("write REGISTRY/REPOSITORY[:TAG]"))
            }
            [only] => return Ok(only.clone()),
            _ => {}
        }
        if let Some(store) = Store::open(&self.root)? {
            for source in &sources {
                if store.find(source)?.is_some() {
                    return Ok(source.clone());
                }
            }
        }
        if registries.mode() != Mode::Disabled && self.output.can_ask() {
            return match self.output.choose(&format!("{}:", ambiguous()), &names)? {
                Some(number) => Ok(sources[number].clone()),
                None => bail!(Fault::new(Code::Refused, format!("{}, and none was chosen", ambiguous()))),
            };
        }
        if registries.mode() == Mode::Enforcing {
            let message = format!("{}, and short-name-mode is enforcing", ambiguous());
            bail!(Fault::new(Code::Usage, message).hint("write one of them in full"))
        }
        let settings = settings::load(&root)?;
        let mut failures = Vec::new();
        for source in sources {
            let asked = policy::check(&self.root, &source).and_then(|()| source::resolve(&source, &root, &settings));
            match asked {
                Ok(_) => return Ok(source),
                Err(error) => failures.push(format!("{source}: {error:#}")),
            }
        }
        bail!(Fault::new(Code::NotFound, format!("no registry has {short}: {}", failures.join("; "))))
    }
}
