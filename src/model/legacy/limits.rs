//! Limits of an old config.json become the unit's: the control group is systemd's.

use serde_json::{Value as Json, json};

/// Takes `linux.resources` out, but for its devices; gives the lines of `[Service]` in its place, and what there is to say.
pub fn of(config: &mut Json) -> (Vec<(&'static str, String)>, Vec<String>) {
    let (mut lines, mut notes) = (Vec::new(), Vec::new());
    let Some(resources) = config.pointer_mut("/linux/resources").and_then(Json::as_object_mut) else {
        return (lines, notes);
    };
    let devices = resources.remove("devices");
    let given = Json::Object(std::mem::take(resources));
    if let Some(devices) = devices {
        resources.insert("devices".to_owned(), devices);
    }
    let number = |pointer: &str| given.pointer(pointer).and_then(Json::as_i64);
    let text = |pointer: &str| given.pointer(pointer).and_then(Json::as_str).filter(|text| !text.is_empty());
    let mut known: Vec<(&str, &'static str, String)> = Vec::new();
    let limit = |pointer: &str| number(pointer).filter(|number| *number > 0);
    if let Some(bytes) = limit("/memory/limit") {
        known.push(("memory.limit", "MemoryMax", bytes.to_string()));
    }
    if let Some(bytes) = limit("/memory/reservation") {
        known.push(("memory.reservation", "MemoryHigh", bytes.to_string()));
    }
    if let (Some(both), Some(memory)) = (limit("/memory/swap"), limit("/memory/limit")) {
        known.push(("memory.swap", "MemorySwapMax", (both - memory).max(0).to_string()));
    }
    if let Some(shares) = limit("/cpu/shares") {
        // 2 to 262144 shares are 1 to 10000 of weight, as systemd and crun count them.
        known.push(("cpu.shares", "CPUWeight", (1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142).to_string()));
    }
    if let Some(quota) = limit("/cpu/quota") {
        let period = limit("/cpu/period").unwrap_or(100_000);
        known.push(("cpu.quota", "CPUQuota", format!("{}%", (quota * 100 / period).max(1))));
    }
    if let Some(cpus) = text("/cpu/cpus") {
        known.push(("cpu.cpus", "AllowedCPUs", cpus.to_owned()));
    }
    if let Some(nodes) = text("/cpu/mems") {
        known.push(("cpu.mems", "AllowedMemoryNodes", nodes.to_owned()));
    }
    if let Some(tasks) = limit("/pids/limit") {
        known.push(("pids.limit", "TasksMax", tasks.to_string()));
    }
    if let Some(weight) = limit("/blockIO/weight") {
        known.push(("blockIO.weight", "IOWeight", weight.clamp(1, 10_000).to_string()));
    }
    let handled: Vec<&str> = known.iter().map(|(field, ..)| *field).chain(["cpu.period"]).collect();
    for (field, key, value) in &known {
        notes.push(format!("linux.resources.{field} is {key}={value} of the unit"));
        lines.push((*key, value.clone()));
    }
    for (group, fields) in given.as_object().into_iter().flatten() {
        for (field, value) in fields.as_object().into_iter().flatten() {
            let name = format!("{group}.{field}");
            let says_nothing = [json!(0), json!(-1), json!(false), json!(""), json!([])].contains(value);
            if !says_nothing && !handled.contains(&name.as_str()) {
                notes.push(format!("linux.resources.{name} is left out: a drop-in of the unit can set such limits"));
            }
        }
        if !fields.is_object() && *fields != json!(false) && *fields != json!([]) {
            notes.push(format!("linux.resources.{group} is left out"));
        }
    }
    (lines, notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_a_line_of_the_unit_or_a_note() {
        let mut config = json!({"linux": {"resources": {
            "devices": [{"allow": false, "access": "rwm"}], "disableOOMKiller": false,
            "memory": {"limit": 1000, "swap": 1500, "reservation": 800, "kernel": 5, "swappiness": 0},
            "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "cpus": "0-1", "mems": "", "realtimeRuntime": 0},
            "pids": {"limit": 50}, "blockIO": {"weight": 500}, "hugepageLimits": []}}});
        let (lines, notes) = of(&mut config);
        let lines: Vec<String> = lines.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            lines,
            [
                "MemoryMax=1000",
                "MemoryHigh=800",
                "MemorySwapMax=500",
                "CPUWeight=39",
                "CPUQuota=50%",
                "AllowedCPUs=0-1",
                "TasksMax=50",
                "IOWeight=500"
            ]
        );
        assert_eq!(notes.len(), lines.len() + 1, "{notes:?}");
        assert!(notes.iter().any(|note| note.contains("memory.kernel is left out")), "{notes:?}");
        assert_eq!(config["linux"]["resources"], json!({"devices": [{"allow": false, "access": "rwm"}]}));
    }
}
