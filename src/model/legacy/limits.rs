//! Limits of an old config.json become the unit's: the control group is systemd's.

use serde_json::{Value as Json, json};

/// More processors than any machine has; systemd takes no percentage that is far beyond.
const MOST_PERCENT: i128 = 1_000_000;

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
    // What is none the kernel would refuse, and the unit could take for another line.
    let is_list = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b',' || b == b'-');
    let list = |pointer: &str| given.pointer(pointer).and_then(Json::as_str).filter(|text| is_list(text));
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
        let percent = i128::from(quota) * 100 / i128::from(period);
        known.push(("cpu.quota", "CPUQuota", format!("{}%", percent.clamp(1, MOST_PERCENT))));
    }
    if let Some(cpus) = list("/cpu/cpus") {
        known.push(("cpu.cpus", "AllowedCPUs", cpus.to_owned()));
    }
    if let Some(nodes) = list("/cpu/mems") {
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
    #[test]
    fn no_number_is_too_large_and_no_list_is_more_than_one() {
        let lines = |cpu: Json| of(&mut json!({"linux": {"resources": {"cpu": cpu}}})).0;
        assert_eq!(lines(json!({"quota": i64::MAX, "period": 1})), [("CPUQuota", "1000000%".to_owned())]);
        assert_eq!(lines(json!({"quota": i64::MAX, "period": i64::MAX})), [("CPUQuota", "100%".to_owned())]);
        for list in ["0\nExecStartPre=/bin/sh", "0 \r1", "all", "0-1;2", "%i"] {
            let mut config = json!({"linux": {"resources": {"cpu": {"cpus": list, "mems": list}}}});
            let (lines, notes) = of(&mut config);
            assert_eq!((lines.len(), notes.len()), (0, 2), "{list:?}: {lines:?} {notes:?}");
            assert!(notes[0].contains("linux.resources.cpu.cpus is left out"), "{notes:?}");
        }
    }
}
