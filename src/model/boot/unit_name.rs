//! Names of units: templates, instances, aliases of places (systemd.unit(5), systemd-escape(1)).

/// `a@.service` of `a@1.service`; none of a unit that is no instance.
pub fn template(unit: &str) -> Option<String> {
    let (stem, kind) = unit.rsplit_once('.')?;
    let (prefix, instance) = stem.split_once('@')?;
    (!instance.is_empty()).then(|| format!("{prefix}@.{kind}"))
}

/// Whether it is a template, which nothing can start.
pub fn is_template(unit: &str) -> bool {
    unit.rsplit_once('.').is_some_and(|(stem, _)| stem.ends_with('@'))
}

/// `a@1.service` of `a@.service`; another name is itself.
pub fn instantiate(unit: &str, instance: &str) -> String {
    match unit.rsplit_once('.') {
        Some((stem, kind)) if stem.ends_with('@') => format!("{stem}{instance}.{kind}"),
        _ => unit.to_owned(),
    }
}

/// What stands between `@` and the ending.
pub fn instance(unit: &str) -> &str {
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    stem.split_once('@').map_or("", |(_, instance)| instance)
}

/// The last part of the name: `service`, `target`, ...
pub fn kind(unit: &str) -> &str {
    unit.rsplit_once('.').map_or("", |(_, kind)| kind)
}

/// The names of the folders with drop-ins (`.d`), the one that counts most first: its own, its template's, those of each part of the
/// name that ends in `-`, and that of its kind.
pub fn folders(unit: &str, ending: &str) -> Vec<String> {
    let kind = kind(unit);
    let mut names = vec![unit.to_owned()];
    names.extend(template(unit));
    let stem = unit.strip_suffix(kind).and_then(|stem| stem.strip_suffix('.')).unwrap_or(unit);
    let prefix = stem.split_once('@').map_or(stem, |(prefix, _)| prefix);
    let at = if stem.contains('@') { "@" } else { "" };
    let cuts = prefix.match_indices('-').map(|(at, _)| &prefix[..=at]).filter(|part| part.len() < prefix.len());
    let cuts: Vec<String> = cuts.map(|part| format!("{part}{at}.{kind}")).collect();
    names.extend(cuts.into_iter().rev());
    names.push(kind.to_owned());
    names.into_iter().map(|name| format!("{name}.{ending}")).collect()
}

/// The unit of the mount at a path (systemd-escape(1), `--path --suffix=mount`).
pub fn mount(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.is_empty() {
        return "-.mount".to_owned();
    }
    let mut name = String::new();
    for byte in parts.join("/").bytes() {
        match byte {
            b'/' => name.push('-'),
            b'.' if name.is_empty() => name.push_str("\\x2e"),
            byte if byte.is_ascii_alphanumeric() || b":_.".contains(&byte) => name.push(char::from(byte)),
            byte => name.push_str(&format!("\\x{byte:02x}")),
        }
    }
    name + ".mount"
}

/// The units of the mounts that a path may lie on, the root's left out: it is always there.
pub fn mounts_above(path: &str) -> Vec<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    (1..=parts.len()).map(|count| mount(&parts[..count].join("/"))).collect()
}

/// Fills in the specifiers that make names of units (systemd.unit(5), "Specifiers"); none where one would need the machine.
pub fn specifiers(text: &str, unit: &str) -> Option<String> {
    let stem = unit.rsplit_once('.').map_or(unit, |(stem, _)| stem);
    let prefix = stem.split_once('@').map_or(stem, |(prefix, _)| prefix);
    let last = prefix.rsplit_once('-').map_or(prefix, |(_, last)| last);
    let mut chars = text.chars();
    let mut filled = String::new();
    while let Some(c) = chars.next() {
        if c != '%' {
            filled.push(c);
            continue;
        }
        match chars.next()? {
            '%' => filled.push('%'),
            'n' => filled.push_str(unit),
            'N' => filled.push_str(stem),
            'p' => filled.push_str(prefix),
            'i' => filled.push_str(instance(unit)),
            'j' => filled.push_str(last),
            't' => filled.push_str("/run"),
            'S' => filled.push_str("/var/lib"),
            'C' => filled.push_str("/var/cache"),
            'L' => filled.push_str("/var/log"),
            _ => return None,
        }
    }
    Some(filled)
}
