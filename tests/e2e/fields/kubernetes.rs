//! Fields of Kubernetes' own kinds.

use super::{
    Proof::{Nothing, Reported, Test},
    Row,
};

pub(super) const ROWS: &[Row] = &[
    ("Namespace", "status.phase", Nothing("deleting it deletes what it holds, one by one")),
    ("Pod", "metadata.ownerReferences[].**", Nothing("for people: who runs it")),
    ("Pod", "spec.containers[].**", Test("a_pod_is_a_workload_of_its_service_account")),
    ("Pod", "spec.initContainers[].**", Test("a_pod_is_a_workload_of_its_service_account")),
    ("Pod", "spec.hostNetwork", Test("a_pod_without_the_label_or_in_its_nodes_network_is_not_meshed")),
    ("Pod", "spec.nodeName", Test("a_pod_is_where_its_node_or_its_own_label_says")),
    ("Pod", "spec.serviceAccountName", Test("a_pod_is_a_workload_of_its_service_account")),
    ("Pod", "status.conditions[].**", Nothing("which pods are ready its EndpointSlices say")),
    (
        "Pod",
        "status.phase",
        Test("a_pod_without_an_address_has_its_policy_already_and_a_finished_one_is_none"),
    ),
    ("Pod", "status.podIP", Test("a_pod_is_found_at_its_address_of_either_family")),
    ("Pod", "status.podIPs[].ip", Test("a_pod_is_found_at_its_address_of_either_family")),
    ("Service", "spec.clusterIP", Test("a_connection_goes_where_its_address_says")),
    ("Service", "spec.clusterIPs[]", Test("a_connection_goes_where_its_ipv6_address_says")),
    (
        "Service",
        "spec.internalTrafficPolicy",
        Test("a_service_prefers_the_zone_or_the_node_or_calls_its_node_alone"),
    ),
    (
        "Service",
        "spec.trafficDistribution",
        Test("a_service_prefers_the_zone_or_the_node_or_calls_its_node_alone"),
    ),
    (
        "Service",
        "spec.sessionAffinity",
        Test("a_service_with_client_affinity_keeps_each_client_at_one_endpoint"),
    ),
    (
        "Service",
        "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
        Reported("what_a_service_asks_for_and_does_not_get_is_reported"),
    ),
    (
        "Service",
        "spec.publishNotReadyAddresses",
        Reported("what_a_service_asks_for_and_does_not_get_is_reported"),
    ),
    ("Service", "spec.type", Reported("what_a_service_asks_for_and_does_not_get_is_reported")),
    ("Service", "spec.ipFamilies", Nothing("its addresses say it")),
    ("Service", "spec.ipFamilyPolicy", Nothing("its addresses say it")),
    ("Service", "spec.ports[].appProtocol", Test("a_ports_protocol_is_its_app_protocol_or_its_name")),
    (
        "Service",
        "spec.ports[].name",
        Test("ports_are_opaque_by_name_annotation_and_number_and_their_workload_hears_of_it"),
    ),
    ("Service", "spec.ports[].port", Test("a_cluster_ip_is_the_service_at_its_ports")),
    ("Service", "spec.ports[].protocol", Reported("a_service_reads_its_ports")),
    ("Service", "spec.ports[].targetPort", Test("target_ports_follow_the_workload_then_the_service")),
    ("Service", "spec.selector.*", Test("endpoints_say_where_to_dial_and_whom_to_expect")),
    ("EndpointSlice", "addressType", Test("a_pod_is_found_at_its_address_of_either_family")),
    ("EndpointSlice", "endpoints[].addresses[]", Test("a_slices_address_is_the_workload_that_has_it")),
    (
        "EndpointSlice",
        "endpoints[].conditions.**",
        Test("an_ending_pod_is_called_only_where_nothing_else_is_left"),
    ),
    (
        "EndpointSlice",
        "endpoints[].hints.**",
        Test("hints_of_slices_are_followed_as_kube_proxy_follows_them"),
    ),
    (
        "EndpointSlice",
        "endpoints[].nodeName",
        Test("where_an_address_of_a_slice_is_its_node_or_its_zone_says"),
    ),
    ("EndpointSlice", "endpoints[].zone", Test("where_an_address_of_a_slice_is_its_node_or_its_zone_says")),
    (
        "EndpointSlice",
        "endpoints[].targetRef.**",
        Test("an_address_of_a_slice_is_the_pod_that_it_names_or_left_out"),
    ),
    ("EndpointSlice", "ports[].appProtocol", Nothing("the Service says it")),
    (
        "EndpointSlice",
        "ports[].name",
        Test("a_services_endpoints_are_those_of_its_slices_and_never_pods_by_their_labels"),
    ),
    (
        "EndpointSlice",
        "ports[].port",
        Test("a_services_endpoints_are_those_of_its_slices_and_never_pods_by_their_labels"),
    ),
    (
        "EndpointSlice",
        "ports[].protocol",
        Reported("every_field_that_is_not_acted_on_is_named_with_its_line"),
    ),
    (
        "Ingress",
        "spec.ingressClassName",
        Test("in_a_cluster_an_ingress_is_ours_by_its_class_or_by_the_default_class"),
    ),
    (
        "Ingress",
        "spec.defaultBackend.**",
        Test("what_no_path_is_for_goes_to_the_default_backend_of_its_host_or_of_all"),
    ),
    (
        "Ingress",
        "spec.rules[].host",
        Test("a_host_is_a_name_or_has_one_label_for_its_wildcard_or_is_every_host"),
    ),
    (
        "Ingress",
        "spec.rules[].http.paths[].backend.**",
        Test("a_backend_that_is_not_there_answers_503_and_is_told_with_its_field"),
    ),
    (
        "Ingress",
        "spec.rules[].http.paths[].path",
        Test("a_path_is_exact_a_prefix_of_segments_or_as_nginx_reads_it"),
    ),
    (
        "Ingress",
        "spec.rules[].http.paths[].pathType",
        Test("a_path_is_exact_a_prefix_of_segments_or_as_nginx_reads_it"),
    ),
    (
        "Ingress",
        "spec.tls[].hosts[]",
        Test(
            "each_host_has_its_certificate_and_its_plaintext_is_sent_there_unless_an_annotation_says_otherwise",
        ),
    ),
    (
        "Ingress",
        "spec.tls[].secretName",
        Test(
            "each_host_has_its_certificate_and_its_plaintext_is_sent_there_unless_an_annotation_says_otherwise",
        ),
    ),
    ("IngressClass", "spec.controller", Test("a_class_is_ours_by_its_controller")),
    ("IngressClass", "spec.parameters", Reported("a_class_is_ours_by_its_controller")),
    ("Service", "spec.externalName", Test("a_service_may_stand_for_a_name_outside_the_mesh")),
    ("ConfigMap", "data.*", Test("clients_are_asked_for_certificates_of_the_authorities_that_are_named")),
    ("Secret", "data.*", Test("a_secret_that_cannot_be_shown_is_reported_and_the_listener_serves_nobody")),
    ("Secret", "stringData.*", Test("a_listener_of_https_shows_the_certificates_that_it_names")),
    ("Secret", "type", Nothing("its parts say what it holds")),
];
