//! The container files, which cannot be run in tests, agree with the program and with each other.

use crate::support::{pgweir, repository, stderr, stdout};

#[test]
fn the_mounted_configuration_is_accepted() {
    let path = repository("docker/pgweir.yaml");
    let output = pgweir(&["check", "-c", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
}

#[test]
fn the_compose_file_names_the_shards_and_mounts_the_configuration() {
    let text = std::fs::read_to_string(repository("docker-compose.yml")).unwrap();
    let compose: serde_json::Value = serde_yaml::from_str(&text).unwrap();
    let services = compose["services"].as_object().unwrap();
    let config = std::fs::read_to_string(repository("docker/pgweir.yaml")).unwrap();
    for shard in services.keys().filter(|name| name.starts_with("shard-")) {
        assert!(config.contains(&format!("@{shard}/shop")), "{shard} is not in docker/pgweir.yaml");
    }
    let mount = services["pgweir"]["volumes"][0].as_str().unwrap();
    let dockerfile = std::fs::read_to_string(repository("Dockerfile")).unwrap();
    let mut parts = mount.split(':');
    assert!(repository(parts.next().unwrap()).is_file(), "{mount}");
    assert!(dockerfile.contains(parts.next().unwrap()), "the image does not read {mount}");
}
