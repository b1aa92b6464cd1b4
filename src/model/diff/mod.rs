//! What differs between two deployments of a container, as an admin has to judge it: pure comparison of what was read elsewhere.

pub mod config;
pub mod files;
pub mod host_files;
pub mod packages;
pub mod powers;
mod rpm;
mod sqlite;
pub mod units;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value as Json;

use super::{
    digest::Digest,
    host_files::Placed,
    request::Requests,
    values::{Value, Values},
};
use config::ConfigDifference;
use host_files::HostFileDifference;
use packages::{Packages, PackagesDifference};
use units::UnitDifference;

/// One of the two deployments, read whole.
pub struct Side {
    /// What names it.
    pub identity: Identity,
    /// Settings in force.
    pub values: Values,
    /// What the image requests of the host.
    pub requests: Requests,
    /// The rendered set, by file name.
    pub units: BTreeMap<String, String>,
    /// What it places on the host.
    pub host_files: Vec<Placed>,
    /// config.json.
    pub config: Json,
    /// What the package manager of the image knows.
    pub packages: Packages,
}

/// A deployment by its number and image.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Identity {
    /// None for one that is not made yet.
    pub deployment: Option<u32>,
    pub image: String,
    pub digest: Digest,
    pub version: Option<String>,
    /// When the deployment was made.
    pub created: Option<String>,
    #[serde(skip)]
    pub commit: String,
}

/// What only the new one has, and what only the old one has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)]
pub struct GainedLost<T> {
    pub gained: Vec<T>,
    pub lost: Vec<T>,
}

/// A value that is not the same.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct ValueChange {
    pub name: String,
    pub from: Option<Value>,
    pub to: Option<Value>,
}

/// Everything but the files.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct Difference {
    pub from: Identity,
    pub to: Identity,
    pub requests: GainedLost<String>,
    pub config: ConfigDifference,
    pub values: Vec<ValueChange>,
    pub units: Vec<UnitDifference>,
    #[serde(rename = "hostFiles")]
    pub host_files: Vec<HostFileDifference>,
    pub packages: PackagesDifference,
}

impl<T> GainedLost<T> {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.gained.is_empty() && self.lost.is_empty()
    }
}

impl<T: Ord + Clone> GainedLost<T> {
    /// Of two sets.
    pub fn of<'a>(old: impl IntoIterator<Item = &'a T>, new: impl IntoIterator<Item = &'a T>) -> GainedLost<T>
    where
        T: 'a,
    {
        let sets: [std::collections::BTreeSet<&T>; 2] = [old.into_iter().collect(), new.into_iter().collect()];
        let only = |one: usize, other: usize| sets[one].difference(&sets[other]).map(|it| (*it).clone()).collect();
        GainedLost { gained: only(1, 0), lost: only(0, 1) }
    }
}

/// Compares two deployments of one container.
pub fn compare(old: &Side, new: &Side) -> Difference {
    Difference {
        from: old.identity.clone(),
        to: new.identity.clone(),
        requests: GainedLost::of(&old.requests, &new.requests),
        config: config::compare(&old.config, &new.config),
        values: values(&old.values, &new.values),
        units: units::compare(old, new),
        host_files: host_files::compare(&old.host_files, &new.host_files),
        packages: packages::compare(&old.packages, &new.packages),
    }
}

fn values(old: &Values, new: &Values) -> Vec<ValueChange> {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let change =
        |name: &String| ValueChange { name: name.clone(), from: old.get(name).cloned(), to: new.get(name).cloned() };
    names.into_iter().map(change).filter(|change| change.from != change.to).collect()
}
