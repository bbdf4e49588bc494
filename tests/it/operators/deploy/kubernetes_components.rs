//! The components of `deploy/k8s` beside the base: scraping, ingress, network policy, autoscaling.
//!
//! promtool applies the relabeling to the pods of the base, as a Prometheus in the cluster would discover them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;
use std::time::Duration;

use harness::{ChildProgram, repository};
use serde_json::{Value, json};

use super::kubernetes::{object, objects};
use super::yaml::{document, documents, list, text};

const PLAIN: &str = "deploy/k8s/prometheus/prometheus.yml";
const MONITORS: &str = "deploy/k8s/podmonitor/podmonitor.yaml";
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns one discovered target for each port of each pod: what Prometheus knows of it before relabeling.
fn discovered_pods(phase: &str) -> Vec<Value> {
    let objects = objects();
    let deployments = objects.iter().filter(|object| object["kind"] == "Deployment");
    let targets = deployments.flat_map(|deployment| {
        let pod = &deployment["spec"]["template"];
        let name = text(&pod["metadata"]["labels"]["app.kubernetes.io/name"]);
        list(&pod["spec"]["containers"][0]["ports"]).iter().map(move |port| {
            json!({
                "targets": [format!("10.0.0.1:{}", port["containerPort"])],
                "labels": {
                    "__meta_kubernetes_pod_name": format!("{name}-5d8f-x2x7q"),
                    "__meta_kubernetes_pod_phase": phase,
                    "__meta_kubernetes_pod_container_port_name": port["name"],
                    "__meta_kubernetes_pod_label_app_kubernetes_io_name": name,
                },
            })
        })
    });
    targets.collect()
}

/// Returns the address, job and instance of each target that this scrape configuration keeps.
async fn scraped(job: &str, relabeling: &Value, pods: &[Value]) -> BTreeSet<[String; 3]> {
    let folder = tempfile::tempdir().unwrap();
    let (targets, configuration) = (folder.path().join("targets.json"), folder.path().join("prometheus.yml"));
    fs::write(&targets, Value::from(pods.to_vec()).to_string()).unwrap();
    let scrape = json!({ "job_name": job, "file_sd_configs": [{ "files": [targets] }], "relabel_configs": relabeling });
    fs::write(&configuration, json!({ "scrape_configs": [scrape] }).to_string()).unwrap();
    let arguments = ["check", "service-discovery", "--timeout=5s", configuration.to_str().unwrap(), job];
    let ran = ChildProgram::system("promtool", "promtool").args(arguments).run(PATIENCE).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let found: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    let kept = found.iter().map(|target| &target["labels"]).filter(|labels| !labels.is_null());
    let kept = kept.filter(|labels| labels.as_object().is_some_and(|labels| !labels.is_empty()));
    kept.map(|labels| ["__address__", "job", "instance"].map(|label| text(&labels[label]).to_owned())).collect()
}

fn target(program: &str, port: u16) -> [String; 3] {
    [format!("10.0.0.1:{port}"), program.to_owned(), format!("parley-{program}-5d8f-x2x7q")]
}

/// Returns the jobs that the alerts and dashboards select, from the configuration of compose.
fn wanted_jobs() -> BTreeSet<String> {
    let compose = document("deploy/prometheus/prometheus.yml");
    list(&compose["scrape_configs"]).iter().map(|scrape| text(&scrape["job_name"]).to_owned()).collect()
}

#[tokio::test]
async fn plain_scraping_yields_the_jobs_of_alerts() {
    let configuration = document(PLAIN);
    let scrape = &configuration["scrape_configs"][0];
    assert_eq!(list(&configuration["scrape_configs"]).len(), 1);
    assert_eq!(scrape["kubernetes_sd_configs"], json!([{ "role": "pod" }]));
    let mut pods = discovered_pods("Running");
    pods.push(json!({
        "targets": ["10.0.0.9:9180"],
        "labels": {
            "__meta_kubernetes_pod_name": "other-1",
            "__meta_kubernetes_pod_phase": "Running",
            "__meta_kubernetes_pod_container_port_name": "admin",
            "__meta_kubernetes_pod_label_app_kubernetes_io_name": "other",
        },
    }));
    let scraped_now = scraped("parley-pods", &scrape["relabel_configs"], &pods).await;
    assert_eq!(scraped_now, BTreeSet::from([target("gateway", 9180), target("presence", 9190)]));
    assert_eq!(scraped_now.iter().map(|[_, job, _]| job.clone()).collect::<BTreeSet<_>>(), wanted_jobs());
    let ended = scraped("parley-pods", &scrape["relabel_configs"], &discovered_pods("Succeeded")).await;
    assert_eq!(ended, BTreeSet::new(), "a pod that has ended is not scraped");
}

#[tokio::test]
async fn pod_monitors_yield_the_jobs_of_alerts() {
    let mut found = BTreeSet::new();
    for monitor in documents(MONITORS) {
        let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
        let selected = &monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"];
        // The operator keeps the pods of the selector and the named port, sets its own job, and then relabels.
        let pods: Vec<Value> = discovered_pods("Running")
            .into_iter()
            .filter(|pod| pod["labels"]["__meta_kubernetes_pod_label_app_kubernetes_io_name"] == *selected)
            .filter(|pod| pod["labels"]["__meta_kubernetes_pod_container_port_name"] == endpoint["port"])
            .collect();
        let names = BTreeMap::from([("sourceLabels", "source_labels"), ("targetLabel", "target_label")]);
        let relabeling: Vec<Value> = list(&endpoint["relabelings"])
            .iter()
            .map(|rule| {
                let fields = rule.as_object().unwrap().iter();
                fields
                    .map(|(key, value)| ((*names.get(key.as_str()).unwrap_or(&key.as_str())).to_owned(), value.clone()))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            })
            .collect();
        found.extend(scraped("parley-monitor", &relabeling.into(), &pods).await);
    }
    assert_eq!(found, BTreeSet::from([target("gateway", 9180), target("presence", 9190)]));
}

#[tokio::test]
async fn prometheus_rule_contains_every_alert() {
    let script = repository().join("deploy/k8s/prometheus-rule");
    let ran = ChildProgram::system(script.to_str().unwrap(), "prometheus-rule").run(PATIENCE).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let rule: Value = serde_saphyr::from_str(&ran.stdout).unwrap();
    assert_eq!((&rule["kind"], &rule["apiVersion"]), (&"PrometheusRule".into(), &"monitoring.coreos.com/v1".into()));
    assert_eq!(rule["spec"], document("deploy/prometheus/alerts.yml"));
}

#[test]
fn ingress_leads_to_the_websocket_port() {
    let ingress = document("deploy/k8s/ingress/ingress.yaml");
    let rule = &ingress["spec"]["rules"][0];
    assert_eq!(rule["host"], ingress["spec"]["tls"][0]["hosts"][0]);
    let path = &rule["http"]["paths"][0];
    assert_eq!((&path["path"], &path["pathType"]), (&"/".into(), &"Prefix".into()));
    let backend = &path["backend"]["service"];
    let objects = objects();
    let service = object(&objects, "Service", text(&backend["name"]));
    assert!(list(&service["spec"]["ports"]).iter().any(|port| port["name"] == backend["port"]["name"]), "{backend}");
    let annotations = &ingress["metadata"]["annotations"];
    let of_nginx = fs::read_to_string(repository().join("deploy/nginx/parley.conf")).unwrap();
    for (annotation, setting) in
        [("proxy-read-timeout", "proxy_read_timeout"), ("proxy-send-timeout", "proxy_send_timeout")]
    {
        let seconds = text(&annotations[format!("nginx.ingress.kubernetes.io/{annotation}")]);
        assert!(of_nginx.contains(&format!("{setting} {seconds}s;")), "{annotation} differs from parley.conf");
    }
    assert!(text(&annotations["nginx.ingress.kubernetes.io/proxy-next-upstream"]).contains("http_503"));
}

#[test]
fn network_policies_close_admin_and_api_ports() {
    let objects = objects();
    let policies = documents("deploy/k8s/network-policy/network-policy.yaml");
    let (of_redis, of_programs): (Vec<_>, Vec<_>) =
        policies.iter().partition(|policy| text(&policy["metadata"]["name"]) == "parley-redis");
    assert_eq!((of_redis.len(), of_programs.len()), (1, 2));
    for policy in of_programs {
        let name = text(&policy["metadata"]["name"]);
        let pod = &object(&objects, "Deployment", name)["spec"]["template"];
        assert_eq!(policy["spec"]["podSelector"]["matchLabels"], pod["metadata"]["labels"], "{name}");
        let mut open: Vec<&str> = Vec::new();
        let mut admitted: Vec<&str> = Vec::new();
        for rule in list(&policy["spec"]["ingress"]) {
            let ports = list(&rule["ports"]).iter().map(|port| text(&port["port"]));
            if rule.get("from").is_some() { admitted.extend(ports) } else { open.extend(ports) }
        }
        let own: BTreeSet<&str> =
            list(&pod["spec"]["containers"][0]["ports"]).iter().map(|port| text(&port["name"])).collect();
        assert_eq!(open.iter().chain(&admitted).copied().collect::<BTreeSet<_>>(), own, "{name}: each port has a rule");
        assert!(!open.contains(&"admin") && !open.contains(&"api"), "{name}: {open:?}");
        // Outgoing connections of each program reach the port that the policy of Redis opens.
        let redis = &of_redis[0]["spec"]["ingress"][0]["ports"][0]["port"];
        assert!(list(&policy["spec"]["egress"]).iter().any(|rule| rule["ports"][0]["port"] == *redis), "{name}");
    }
    let rules = list(&of_redis[0]["spec"]["ingress"]);
    assert_eq!(rules.len(), 1, "no other rule opens Redis");
    let admitted: Vec<&Value> =
        list(&rules[0]["from"]).iter().map(|from| &from["podSelector"]["matchLabels"]).collect();
    let programs: Vec<&Value> = ["parley-gateway", "parley-presence"]
        .map(|name| &object(&objects, "Deployment", name)["spec"]["template"]["metadata"]["labels"])
        .into();
    assert_eq!(admitted, programs);
}

#[test]
fn autoscaler_and_base_agree_on_replicas() {
    let scaler = document("deploy/k8s/autoscaling/autoscaler.yaml");
    let objects = objects();
    let deployment = object(&objects, "Deployment", text(&scaler["spec"]["scaleTargetRef"]["name"]));
    assert_eq!(scaler["spec"]["minReplicas"], deployment["spec"]["replicas"]);
    let requests = &deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"];
    assert!(requests.get("cpu").is_some(), "a utilization is a share of the request");
    let component = document("deploy/k8s/autoscaling/kustomization.yaml");
    assert!(text(&component["patches"][0]["patch"]).contains("remove, path: /spec/replicas"));
}

/// Runs kustomize where `kubectl` is installed; the tests above do not need it.
#[test]
fn example_overlay_contains_every_component() {
    let overlay = document("deploy/k8s/complete/kustomization.yaml");
    let mut expected: Vec<String> = Vec::new();
    let kind = |object: &Value| text(&object["kind"]).to_owned();
    expected.extend(objects().iter().map(kind));
    for component in list(&overlay["components"]) {
        let folder = format!("deploy/k8s/{}", text(component).trim_start_matches("../"));
        let resources = document(&format!("{folder}/kustomization.yaml"));
        assert_eq!(resources["kind"], "Component", "{folder}");
        let files = list(&resources["resources"]).iter();
        expected
            .extend(files.flat_map(|file| documents(&format!("{folder}/{}", text(file)))).map(|object| kind(&object)));
    }
    let build = Command::new("kubectl").args(["kustomize", "deploy/k8s/complete"]).current_dir(repository()).output();
    let built = match build {
        Ok(built) => built,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => panic!("kubectl: {error}"),
    };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let built = serde_saphyr::from_multiple::<Value>(&String::from_utf8(built.stdout).unwrap()).unwrap();
    let mut kinds: Vec<String> = built.iter().map(kind).collect();
    kinds.sort();
    expected.sort();
    assert_eq!(kinds, expected);
    assert_eq!(object(&built, "Deployment", "parley-gateway")["spec"].get("replicas"), None);
}
