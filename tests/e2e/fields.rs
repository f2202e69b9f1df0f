//! Each field that a document may have, and the test that proves what it does. The list of fields is the decoder's own.

use std::{collections::BTreeSet, fs, path::Path};

use selvedge_control_plane::resources::kinds::acted_on;

/// What is proven of a field.
enum Proof {
    /// That it does what Istio (or Kubernetes) documents, by the test of this name.
    Test(&'static str),
    /// That it is reported as not acted on, by the test of this name.
    Reported(&'static str),
    /// Nothing: it asks nothing of a mesh, for this reason.
    Nothing(&'static str),
}

use Proof::{Nothing, Reported, Test};

/// A kind; a field, or with `**` all below it; and what is proven of it. `POLICY` is each place of a `trafficPolicy`.
type Row = (&'static str, &'static str, Proof);

const MATCHES: Proof = Test("every_condition_of_a_match_holds_in_either_version_of_http_alike");
const SHARES: Proof = Test("canary_with_header");

const ROWS: &[Row] = &[
    ("Namespace", "status.phase", Nothing("deleting it deletes what it holds, one by one")),
    ("Pod", "metadata.ownerReferences[].**", Nothing("for people: who runs it")),
    ("Pod", "spec.containers[].**", Test("a_pod_is_a_workload_of_its_service_account")),
    ("Pod", "spec.initContainers[].**", Test("a_pod_is_a_workload_of_its_service_account")),
    ("Pod", "spec.hostNetwork", Test("a_pod_without_the_label_or_in_its_nodes_network_is_not_meshed")),
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
        Reported("what_a_service_asks_for_and_does_not_get_is_reported"),
    ),
    ("Service", "spec.sessionAffinity", Reported("what_a_service_asks_for_and_does_not_get_is_reported")),
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
    ("EndpointSlice", "endpoints[].nodeName", Nothing("where a pod runs does not matter to who it is")),
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
    ("WorkloadEntry", "spec.address", Test("a_workload_by_name_follows_its_name_and_keeps_its_identity")),
    ("WorkloadEntry", "spec.labels.*", Test("endpoints_say_where_to_dial_and_whom_to_expect")),
    ("WorkloadEntry", "spec.ports.*", Test("target_ports_follow_the_workload_then_the_service")),
    (
        "WorkloadEntry",
        "spec.serviceAccount",
        Test("either_protocol_arrives_with_the_callers_proven_identity"),
    ),
    ("WorkloadEntry", "spec.weight", Test("endpoints_get_shares_as_their_weights_say")),
    (
        "ServiceEntry",
        "spec.addresses[]",
        Test("every_address_of_a_range_is_the_service_for_those_whom_it_is_for"),
    ),
    ("ServiceEntry", "spec.endpoints[].address", Test("service_outside_the_mesh")),
    (
        "ServiceEntry",
        "spec.endpoints[].labels.*",
        Test("a_service_entry_inside_the_mesh_is_meshed_and_one_outside_is_not"),
    ),
    ("ServiceEntry", "spec.endpoints[].ports.*", Test("service_outside_the_mesh")),
    (
        "ServiceEntry",
        "spec.endpoints[].serviceAccount",
        Test("a_service_entry_inside_the_mesh_is_meshed_and_one_outside_is_not"),
    ),
    ("ServiceEntry", "spec.endpoints[].weight", Test("endpoints_get_shares_as_their_weights_say")),
    ("ServiceEntry", "spec.exportTo[]", Test("a_service_entry_is_known_to_those_whom_it_is_for")),
    ("ServiceEntry", "spec.hosts[]", Test("under_a_wildcard_each_name_is_resolved_and_proven_by_itself")),
    (
        "ServiceEntry",
        "spec.location",
        Test("a_service_entry_inside_the_mesh_is_meshed_and_one_outside_is_not"),
    ),
    ("ServiceEntry", "spec.ports[].name", Test("service_outside_the_mesh")),
    ("ServiceEntry", "spec.ports[].number", Test("service_outside_the_mesh")),
    (
        "ServiceEntry",
        "spec.ports[].protocol",
        Test("a_connection_to_an_entry_without_endpoints_goes_where_it_was_going"),
    ),
    ("ServiceEntry", "spec.ports[].targetPort", Test("service_outside_the_mesh")),
    ("ServiceEntry", "spec.resolution", Test("a_service_entry_says_where_its_endpoints_are_found")),
    (
        "ServiceEntry",
        "spec.subjectAltNames[]",
        Test("tls_is_begun_with_the_hosts_name_unless_it_says_otherwise"),
    ),
    ("ServiceEntry", "spec.workloadSelector.labels.*", Test("a_service_entry_selects_workloads")),
    ("VirtualService", "spec.exportTo[]", Test("a_virtual_service_is_followed_by_those_whom_it_is_for")),
    ("VirtualService", "spec.gateways[]", Test("a_virtual_service_for_gateways_is_not_applied")),
    ("VirtualService", "spec.hosts[]", Test("the_most_specific_host_pattern_wins")),
    ("VirtualService", "spec.http[].corsPolicy.**", Test("a_cors_policy_is_read_in_either_form")),
    (
        "VirtualService",
        "spec.http[].delegate.**",
        Test("a_delegates_routes_stand_in_the_place_of_the_one_that_names_it"),
    ),
    ("VirtualService", "spec.http[].directResponse.**", Test("a_direct_response_is_a_status_and_a_body")),
    (
        "VirtualService",
        "spec.http[].fault.delay.exponentialDelay",
        Reported("faults_that_cannot_be_made_are_refused"),
    ),
    (
        "VirtualService",
        "spec.http[].fault.abort.http2Error",
        Reported("faults_that_cannot_be_made_are_refused"),
    ),
    ("VirtualService", "spec.http[].fault.**", Test("a_fault_is_for_a_share_of_requests")),
    (
        "VirtualService",
        "spec.http[].headers.**",
        Test("headers_are_changed_for_a_route_and_for_one_of_its_destinations"),
    ),
    (
        "VirtualService",
        "spec.http[].mirror.**",
        Test("a_copy_is_the_request_as_its_rule_made_it_and_nobody_sees_its_answer"),
    ),
    (
        "VirtualService",
        "spec.http[].mirrorPercent",
        Test("a_mirror_is_a_backend_of_its_own_with_a_share_of_all"),
    ),
    (
        "VirtualService",
        "spec.http[].mirrorPercentage.**",
        Test("a_mirror_is_a_backend_of_its_own_with_a_share_of_all"),
    ),
    (
        "VirtualService",
        "spec.http[].mirrors[].**",
        Test("each_request_is_drawn_for_itself_and_tried_again_it_is_copied_once"),
    ),
    ("VirtualService", "spec.http[].redirect.**", Test("a_redirect_says_where_to")),
    ("VirtualService", "spec.http[].rewrite.**", Test("a_rewrite_is_of_the_path_the_authority_or_both")),
    (
        "VirtualService",
        "spec.http[].route[].headers.**",
        Test("headers_are_changed_for_a_route_and_for_one_of_its_destinations"),
    ),
    ("VirtualService", "spec.http[].match[].sourceLabels.*", Test("who_the_client_is_stands_in_the_match")),
    ("VirtualService", "spec.http[].match[].sourceNamespace", Test("who_the_client_is_stands_in_the_match")),
    ("VirtualService", "spec.http[].match[].authority.**", MATCHES),
    (
        "VirtualService",
        "spec.http[].match[].gateways[]",
        Test("a_match_for_gateways_only_is_not_for_sidecars"),
    ),
    ("VirtualService", "spec.http[].match[].headers.*.**", MATCHES),
    ("VirtualService", "spec.http[].match[].ignoreUriCase", MATCHES),
    ("VirtualService", "spec.http[].match[].method.**", MATCHES),
    ("VirtualService", "spec.http[].match[].name", Nothing("for people: which match it is")),
    ("VirtualService", "spec.http[].match[].port", MATCHES),
    ("VirtualService", "spec.http[].match[].queryParams.*.**", MATCHES),
    ("VirtualService", "spec.http[].match[].scheme.**", MATCHES),
    ("VirtualService", "spec.http[].match[].statPrefix", Nothing("a name in Envoy's own statistics")),
    ("VirtualService", "spec.http[].match[].uri.**", MATCHES),
    ("VirtualService", "spec.http[].match[].withoutHeaders.*.**", MATCHES),
    ("VirtualService", "spec.http[].name", Test("path_method_and_query")),
    ("VirtualService", "spec.http[].retries.attempts", Test("the_number_of_attempts_is_kept")),
    (
        "VirtualService",
        "spec.http[].retries.backoff",
        Test("pauses_are_drawn_below_a_doubling_ceiling_of_at_most_ten_times"),
    ),
    ("VirtualService", "spec.http[].retries.perTryTimeout", Test("the_time_limit_of_an_attempt_ends_it")),
    ("VirtualService", "spec.http[].retries.retryOn", Test("each_word_names_its_failures")),
    (
        "VirtualService",
        "spec.http[].route[].destination.host",
        Test("an_unknown_host_of_its_own_leaves_a_document_without_effect"),
    ),
    (
        "VirtualService",
        "spec.http[].route[].destination.port.number",
        Test("an_unknown_port_of_a_known_host_is_a_broken_reference"),
    ),
    ("VirtualService", "spec.http[].route[].destination.subset", SHARES),
    ("VirtualService", "spec.http[].route[].weight", SHARES),
    ("VirtualService", "spec.http[].timeout", Test("the_time_limit_of_a_route_ends_a_slow_request")),
    (
        "VirtualService",
        "spec.tcp[].match[].destinationSubnets[]",
        Test("the_narrowest_subnet_wins_and_among_equals_the_first"),
    ),
    ("VirtualService", "spec.tcp[].match[].gateways[]", Test("what_tcp_and_tls_routes_get_wrong_is_said")),
    ("VirtualService", "spec.tcp[].match[].port", Test("a_virtual_service_splits_tcp_by_weight_and_port")),
    (
        "VirtualService",
        "spec.tcp[].match[].sniHosts[]",
        Reported("what_tcp_and_tls_routes_get_wrong_is_said"),
    ),
    (
        "VirtualService",
        "spec.tcp[].match[].sourceLabels.*",
        Test("connections_go_where_routes_for_their_client_say"),
    ),
    (
        "VirtualService",
        "spec.tcp[].match[].sourceNamespace",
        Test("connections_go_where_routes_for_their_client_say"),
    ),
    ("VirtualService", "spec.tcp[].route[].**", Test("a_virtual_service_splits_tcp_by_weight_and_port")),
    (
        "VirtualService",
        "spec.tls[].match[].destinationSubnets[]",
        Test("the_narrowest_subnet_wins_and_among_equals_the_first"),
    ),
    ("VirtualService", "spec.tls[].match[].gateways[]", Test("what_tcp_and_tls_routes_get_wrong_is_said")),
    ("VirtualService", "spec.tls[].match[].port", Test("a_virtual_service_sends_tls_by_its_server_name")),
    (
        "VirtualService",
        "spec.tls[].match[].sniHosts[]",
        Test("an_apps_own_tls_goes_where_its_server_name_is_routed"),
    ),
    ("VirtualService", "spec.tls[].match[].sourceLabels.*", Test("a_rule_may_be_for_some_clients_only")),
    ("VirtualService", "spec.tls[].match[].sourceNamespace", Test("a_rule_may_be_for_some_clients_only")),
    ("VirtualService", "spec.tls[].route[].**", Test("a_virtual_service_sends_tls_by_its_server_name")),
    ("DestinationRule", "spec.exportTo[]", Test("a_destination_rule_holds_for_those_whom_it_is_for")),
    ("DestinationRule", "spec.host", Test("a_clients_own_namespace_beats_the_services_and_that_the_root")),
    ("DestinationRule", "spec.subsets[].labels.*", Test("canary_90_10")),
    ("DestinationRule", "spec.subsets[].name", Test("canary_90_10")),
    (
        "DestinationRule",
        "spec.workloadSelector",
        Reported("a_rule_about_tls_that_cannot_be_used_refuses_its_host"),
    ),
    (
        "DestinationRule",
        "POLICY.portLevelSettings[].port.number",
        Test("a_setting_for_a_port_replaces_all_that_is_set_for_the_others"),
    ),
    (
        "DestinationRule",
        "POLICY.connectionPool.http.h2UpgradePolicy",
        Test("http11_travels_as_http2_if_the_policy_says_so"),
    ),
    (
        "DestinationRule",
        "POLICY.connectionPool.http.http1MaxPendingRequests",
        Test("a_request_waits_for_the_one_connection_and_another_one_is_refused"),
    ),
    (
        "DestinationRule",
        "POLICY.connectionPool.http.http2MaxRequests",
        Test("more_requests_than_a_service_may_have_in_progress_are_refused_at_once"),
    ),
    (
        "DestinationRule",
        "POLICY.connectionPool.http.idleTimeout",
        Test("a_destination_rules_idle_timeout_holds_between_a_sidecar_and_its_app"),
    ),
    (
        "DestinationRule",
        "POLICY.connectionPool.http.maxConcurrentStreams",
        Test("http2_opens_another_connection_when_the_server_allows_no_more_requests_on_one"),
    ),
    (
        "DestinationRule",
        "POLICY.connectionPool.http.maxRequestsPerConnection",
        Test("a_connection_takes_no_more_requests_than_its_policy_says"),
    ),
    (
        "DestinationRule",
        "POLICY.connectionPool.http.maxRetries",
        Test("no_more_attempts_after_the_first_are_in_progress_than_are_allowed"),
    ),
    (
        "DestinationRule",
        "POLICY.connectionPool.tcp.connectTimeout",
        Test("the_time_to_connect_is_as_long_as_the_rule_says"),
    ),
    (
        "DestinationRule",
        "POLICY.connectionPool.tcp.idleTimeout",
        Test("opaque_connections_follow_routes_and_keep_to_limits"),
    ),
    (
        "DestinationRule",
        "POLICY.connectionPool.tcp.maxConnectionDuration",
        Test("a_connection_takes_no_more_requests_after_its_time"),
    ),
    (
        "DestinationRule",
        "POLICY.connectionPool.tcp.maxConnections",
        Test("a_request_waits_for_the_one_connection_and_another_one_is_refused"),
    ),
    (
        "DestinationRule",
        "POLICY.loadBalancer.simple",
        Test("round_robin_takes_each_in_turn_and_passes_over_the_ejected"),
    ),
    (
        "DestinationRule",
        "POLICY.outlierDetection.baseEjectionTime",
        Test("an_ejected_endpoint_returns_after_its_time_and_not_before"),
    ),
    (
        "DestinationRule",
        "POLICY.outlierDetection.consecutive5xxErrors",
        Test("failures_in_a_row_eject_and_a_success_starts_again"),
    ),
    ("DestinationRule", "POLICY.outlierDetection.consecutiveErrors", Test("least_request_and_ejection")),
    (
        "DestinationRule",
        "POLICY.outlierDetection.consecutiveGatewayErrors",
        Test("gateway_errors_have_a_limit_of_their_own_which_other_failures_reset"),
    ),
    (
        "DestinationRule",
        "POLICY.outlierDetection.interval",
        Test("each_ejection_is_longer_and_each_healthy_interval_forgives_one"),
    ),
    (
        "DestinationRule",
        "POLICY.outlierDetection.maxEjectionPercent",
        Test("one_endpoint_may_always_be_ejected_and_the_next_only_within_the_cap"),
    ),
    ("DestinationRule", "POLICY.tls.caCertificates", Test("http_becomes_https_and_the_server_is_verified")),
    (
        "DestinationRule",
        "POLICY.tls.clientCertificate",
        Test("a_client_certificate_is_shown_if_the_rule_has_one"),
    ),
    ("DestinationRule", "POLICY.tls.credentialName", Reported("a_destination_rule_says_how_tls_is_begun")),
    (
        "DestinationRule",
        "POLICY.tls.insecureSkipVerify",
        Test("http_becomes_https_and_the_server_is_verified"),
    ),
    ("DestinationRule", "POLICY.tls.mode", Test("http_becomes_https_and_the_server_is_verified")),
    ("DestinationRule", "POLICY.tls.privateKey", Test("a_client_certificate_is_shown_if_the_rule_has_one")),
    ("DestinationRule", "POLICY.tls.sni", Test("http_becomes_https_and_the_server_is_verified")),
    (
        "DestinationRule",
        "POLICY.tls.subjectAltNames[]",
        Test("http_becomes_https_and_the_server_is_verified"),
    ),
    ("GlobalNetworkPolicy", "spec.tier", Reported("what_a_proxy_cannot_enforce_is_said_with_its_field")),
    (
        "GlobalNetworkPolicy",
        "spec.order",
        Test("policies_are_asked_in_their_order_and_those_of_kubernetes_at_1000"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.selector",
        Test("a_rule_may_be_for_some_of_the_workloads_and_ports_of_its_policy"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.types[]",
        Test("a_policy_is_for_the_directions_that_it_has_rules_for_unless_it_says_so"),
    ),
    ("GlobalNetworkPolicy", "spec.namespaceSelector", Test("what_calico_refuses_is_refused_with_its_field")),
    (
        "GlobalNetworkPolicy",
        "spec.serviceAccountSelector",
        Test("what_calico_refuses_is_refused_with_its_field"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.doNotTrack",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    ("GlobalNetworkPolicy", "spec.preDNAT", Reported("what_a_proxy_cannot_enforce_is_said_with_its_field")),
    ("GlobalNetworkPolicy", "spec.applyOnForward", Nothing("it is about hosts")),
    ("GlobalNetworkPolicy", "spec.performanceHints[]", Nothing("it is for Calico itself")),
    (
        "GlobalNetworkPolicy",
        "spec.ingress[].action",
        Test("pass_leaves_the_rest_out_and_what_no_rule_matches_is_denied"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.ingress[].ipVersion",
        Test("what_calico_refuses_is_refused_with_its_field"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.ingress[].protocol",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.ingress[].notProtocol",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.ingress[].icmp.**",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.ingress[].notICMP.**",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    ("GlobalNetworkPolicy", "spec.ingress[].metadata.**", Nothing("for people")),
    (
        "GlobalNetworkPolicy",
        "spec.ingress[].source.**",
        Test("a_policy_in_a_namespace_selects_there_unless_it_selects_namespaces"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.ingress[].destination.**",
        Test("a_rule_may_be_for_some_of_the_workloads_and_ports_of_its_policy"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.egress[].action",
        Test("pass_leaves_the_rest_out_and_what_no_rule_matches_is_denied"),
    ),
    ("GlobalNetworkPolicy", "spec.egress[].ipVersion", Test("what_calico_refuses_is_refused_with_its_field")),
    (
        "GlobalNetworkPolicy",
        "spec.egress[].protocol",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.egress[].notProtocol",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.egress[].icmp.**",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.egress[].notICMP.**",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    ("GlobalNetworkPolicy", "spec.egress[].metadata.**", Nothing("for people")),
    (
        "GlobalNetworkPolicy",
        "spec.egress[].source.**",
        Test("a_policy_in_a_namespace_selects_there_unless_it_selects_namespaces"),
    ),
    (
        "GlobalNetworkPolicy",
        "spec.egress[].destination.**",
        Test("a_rule_may_be_for_some_of_the_workloads_and_ports_of_its_policy"),
    ),
    ("NetworkPolicy", "spec.tier", Reported("what_a_proxy_cannot_enforce_is_said_with_its_field")),
    (
        "NetworkPolicy",
        "spec.order",
        Test("policies_are_asked_in_their_order_and_those_of_kubernetes_at_1000"),
    ),
    (
        "NetworkPolicy",
        "spec.selector",
        Test("a_rule_may_be_for_some_of_the_workloads_and_ports_of_its_policy"),
    ),
    (
        "NetworkPolicy",
        "spec.types[]",
        Test("a_policy_is_for_the_directions_that_it_has_rules_for_unless_it_says_so"),
    ),
    ("NetworkPolicy", "spec.namespaceSelector", Test("what_calico_refuses_is_refused_with_its_field")),
    ("NetworkPolicy", "spec.serviceAccountSelector", Test("what_calico_refuses_is_refused_with_its_field")),
    ("NetworkPolicy", "spec.doNotTrack", Reported("what_a_proxy_cannot_enforce_is_said_with_its_field")),
    ("NetworkPolicy", "spec.preDNAT", Reported("what_a_proxy_cannot_enforce_is_said_with_its_field")),
    ("NetworkPolicy", "spec.applyOnForward", Nothing("it is about hosts")),
    ("NetworkPolicy", "spec.performanceHints[]", Nothing("it is for Calico itself")),
    (
        "NetworkPolicy",
        "spec.ingress[].action",
        Test("pass_leaves_the_rest_out_and_what_no_rule_matches_is_denied"),
    ),
    ("NetworkPolicy", "spec.ingress[].ipVersion", Test("what_calico_refuses_is_refused_with_its_field")),
    (
        "NetworkPolicy",
        "spec.ingress[].protocol",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "NetworkPolicy",
        "spec.ingress[].notProtocol",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "NetworkPolicy",
        "spec.ingress[].icmp.**",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "NetworkPolicy",
        "spec.ingress[].notICMP.**",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    ("NetworkPolicy", "spec.ingress[].metadata.**", Nothing("for people")),
    (
        "NetworkPolicy",
        "spec.ingress[].source.**",
        Test("a_policy_in_a_namespace_selects_there_unless_it_selects_namespaces"),
    ),
    (
        "NetworkPolicy",
        "spec.ingress[].destination.**",
        Test("a_rule_may_be_for_some_of_the_workloads_and_ports_of_its_policy"),
    ),
    (
        "NetworkPolicy",
        "spec.egress[].action",
        Test("pass_leaves_the_rest_out_and_what_no_rule_matches_is_denied"),
    ),
    ("NetworkPolicy", "spec.egress[].ipVersion", Test("what_calico_refuses_is_refused_with_its_field")),
    (
        "NetworkPolicy",
        "spec.egress[].protocol",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "NetworkPolicy",
        "spec.egress[].notProtocol",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "NetworkPolicy",
        "spec.egress[].icmp.**",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    (
        "NetworkPolicy",
        "spec.egress[].notICMP.**",
        Reported("what_a_proxy_cannot_enforce_is_said_with_its_field"),
    ),
    ("NetworkPolicy", "spec.egress[].metadata.**", Nothing("for people")),
    (
        "NetworkPolicy",
        "spec.egress[].source.**",
        Test("a_policy_in_a_namespace_selects_there_unless_it_selects_namespaces"),
    ),
    (
        "NetworkPolicy",
        "spec.egress[].destination.**",
        Test("a_rule_may_be_for_some_of_the_workloads_and_ports_of_its_policy"),
    ),
    ("GlobalNetworkSet", "spec.nets[]", Test("sets_of_addresses_are_selected_by_their_labels")),
    ("NetworkSet", "spec.nets[]", Test("sets_of_addresses_are_selected_by_their_labels")),
    ("NetworkPolicy", "spec.podSelector.**", Test("compiled_policies_allow_what_a_naive_reading_allows")),
    (
        "NetworkPolicy",
        "spec.policyTypes[]",
        Test("a_policy_is_for_ingress_and_for_what_it_has_rules_for_unless_it_says_so"),
    ),
    (
        "NetworkPolicy",
        "spec.ingress[].from[].**",
        Test("compiled_policies_allow_what_a_naive_reading_allows"),
    ),
    (
        "NetworkPolicy",
        "spec.ingress[].ports[].**",
        Test("compiled_policies_allow_what_a_naive_reading_allows"),
    ),
    ("NetworkPolicy", "spec.egress[].to[].**", Test("compiled_policies_allow_what_a_naive_reading_allows")),
    (
        "NetworkPolicy",
        "spec.egress[].ports[].**",
        Test("compiled_policies_allow_what_a_naive_reading_allows"),
    ),
    (
        "AuthorizationPolicy",
        "spec.action",
        Test("what_denies_beats_what_allows_and_what_is_custom_refuses_before_both"),
    ),
    (
        "AuthorizationPolicy",
        "spec.provider.name",
        Reported("custom_is_an_error_that_refuses_the_document_alone"),
    ),
    (
        "AuthorizationPolicy",
        "spec.selector.matchLabels.*",
        Test("policies_of_the_root_namespace_are_for_the_whole_mesh_and_others_for_their_own"),
    ),
    (
        "AuthorizationPolicy",
        "spec.targetRef.**",
        Test("a_policy_is_for_services_or_for_the_labels_of_workloads"),
    ),
    (
        "AuthorizationPolicy",
        "spec.targetRefs[].**",
        Test("a_policy_for_a_service_is_for_the_ports_that_it_sends_to"),
    ),
    (
        "AuthorizationPolicy",
        "spec.rules[].from[].source.**",
        Test("decisions_are_those_of_a_naive_reading_of_the_documents"),
    ),
    (
        "AuthorizationPolicy",
        "spec.rules[].to[].operation.**",
        Test("decisions_are_those_of_a_naive_reading_of_the_documents"),
    ),
    (
        "AuthorizationPolicy",
        "spec.rules[].when[].**",
        Test("decisions_are_those_of_a_naive_reading_of_the_documents"),
    ),
    (
        "RequestAuthentication",
        "spec.selector.matchLabels.*",
        Test("a_token_is_accepted_or_answered_401_with_the_reason"),
    ),
    (
        "RequestAuthentication",
        "spec.targetRef.**",
        Test("rules_about_tokens_are_for_whom_their_documents_select"),
    ),
    (
        "RequestAuthentication",
        "spec.targetRefs[].**",
        Test("rules_about_tokens_are_for_whom_their_documents_select"),
    ),
    (
        "RequestAuthentication",
        "spec.jwtRules[].issuer",
        Test("a_token_is_accepted_or_answered_401_with_the_reason"),
    ),
    (
        "RequestAuthentication",
        "spec.jwtRules[].audiences[]",
        Test("a_token_is_accepted_or_answered_401_with_the_reason"),
    ),
    (
        "RequestAuthentication",
        "spec.jwtRules[].jwks",
        Test("a_token_is_accepted_or_answered_401_with_the_reason"),
    ),
    (
        "RequestAuthentication",
        "spec.jwtRules[].jwksUri",
        Test("without_places_a_rule_looks_where_istio_does_and_without_keys_it_asks_the_issuer"),
    ),
    (
        "RequestAuthentication",
        "spec.jwtRules[].timeout",
        Test("without_places_a_rule_looks_where_istio_does_and_without_keys_it_asks_the_issuer"),
    ),
    (
        "RequestAuthentication",
        "spec.jwtRules[].fromHeaders[].**",
        Test("an_app_is_told_what_a_token_says_in_headers_that_nobody_can_forge"),
    ),
    (
        "RequestAuthentication",
        "spec.jwtRules[].fromParams[]",
        Test("an_app_is_told_what_a_token_says_in_headers_that_nobody_can_forge"),
    ),
    (
        "RequestAuthentication",
        "spec.jwtRules[].fromCookies[]",
        Test("an_app_is_told_what_a_token_says_in_headers_that_nobody_can_forge"),
    ),
    (
        "RequestAuthentication",
        "spec.jwtRules[].outputPayloadToHeader",
        Test("an_app_is_told_what_a_token_says_in_headers_that_nobody_can_forge"),
    ),
    (
        "RequestAuthentication",
        "spec.jwtRules[].outputClaimToHeaders[].**",
        Test("an_app_is_told_what_a_token_says_in_headers_that_nobody_can_forge"),
    ),
    (
        "RequestAuthentication",
        "spec.jwtRules[].forwardOriginalToken",
        Test("an_app_is_told_what_a_token_says_in_headers_that_nobody_can_forge"),
    ),
    (
        "RequestAuthentication",
        "spec.jwtRules[].spaceDelimitedClaims[]",
        Test("every_field_of_a_token_rule_is_read"),
    ),
    (
        "Server",
        "spec.podSelector.**",
        Test("a_server_without_authorization_lets_nobody_in_and_other_ports_are_as_before"),
    ),
    (
        "Server",
        "spec.externalWorkloadSelector.**",
        Reported("a_server_is_a_port_by_number_or_name_and_closed_unless_it_says_otherwise"),
    ),
    ("Server", "spec.port", Test("a_server_is_a_port_by_number_or_name_and_closed_unless_it_says_otherwise")),
    (
        "Server",
        "spec.proxyProtocol",
        Test("a_server_may_carry_what_is_no_http_and_asks_for_the_client_alone"),
    ),
    (
        "Server",
        "spec.accessPolicy",
        Test("the_default_is_for_ports_without_a_server_and_a_servers_own_access_is_beside_its_policies"),
    ),
    (
        "AuthorizationPolicy.policy.linkerd.io",
        "spec.targetRef.**",
        Test("a_target_is_what_linkerd_attaches_policies_to"),
    ),
    (
        "AuthorizationPolicy.policy.linkerd.io",
        "spec.requiredAuthenticationRefs[].**",
        Test("a_policy_lets_in_those_who_are_all_that_it_requires"),
    ),
    ("MeshTLSAuthentication", "spec.identities[]", Test("identities_are_spiffe_ids_in_linkerds_words")),
    (
        "MeshTLSAuthentication",
        "spec.identityRefs[].**",
        Test("a_policy_lets_in_those_who_are_all_that_it_requires"),
    ),
    (
        "NetworkAuthentication",
        "spec.networks[].**",
        Test("a_policy_lets_in_those_who_are_all_that_it_requires"),
    ),
    ("ServerAuthorization", "spec.**", Test("an_older_authorization_names_servers_or_selects_them")),
    (
        "HTTPRoute.policy.linkerd.io",
        "spec.**",
        Test("a_route_of_a_server_has_clients_of_its_own_and_what_matches_none_is_404"),
    ),
    ("PeerAuthentication", "spec.mtls.mode", Test("strict_refuses_plaintext_and_permissive_lets_it_in")),
    ("PeerAuthentication", "spec.portLevelMtls.*.mode", Test("strict_except_one_port")),
    (
        "PeerAuthentication",
        "spec.selector.matchLabels.*",
        Test("the_workload_beats_the_namespace_and_that_the_mesh"),
    ),
    (
        "Revocation",
        "spec.identities[].**",
        Test("a_client_that_is_revoked_loses_every_connection_and_gets_no_new_one"),
    ),
    ("Revocation", "spec.workloads[]", Test("a_workload_is_revoked_by_its_name_without_its_service_account")),
    (
        "Revocation",
        "spec.serials[]",
        Test("a_certificate_that_is_revoked_by_its_number_shuts_nobody_else_out"),
    ),
    ("Revocation", "spec.until", Test("the_longest_of_several_entries_counts_and_each_ends_in_its_time")),
    (
        "Revocation",
        "spec.reason",
        Test("a_sidecar_that_is_revoked_gets_no_certificate_and_no_configuration_and_its_log_says_why"),
    ),
    ("Service", "spec.externalName", Test("a_service_may_stand_for_a_name_outside_the_mesh")),
    ("GRPCRoute", "spec.hostnames", Reported("host_names_are_reported_and_a_route_without_rules_has_one")),
    (
        "GRPCRoute",
        "spec.parentRefs[].**",
        Test("of_several_kinds_on_a_port_one_decides_and_the_others_are_told"),
    ),
    ("GRPCRoute", "spec.rules[].name", Test("rules_are_called_by_their_route_place_and_name")),
    ("GRPCRoute", "spec.rules[].matches[].**", Test("calls_are_matched_by_service_method_and_metadata")),
    (
        "GRPCRoute",
        "spec.rules[].filters[].requestMirror.**",
        Test("routes_of_the_gateway_api_mirror_a_rule_and_a_backend"),
    ),
    ("GRPCRoute", "spec.rules[].filters[].**", Test("headers_are_literals_and_the_first_of_a_name_counts")),
    (
        "GRPCRoute",
        "spec.rules[].backendRefs[].filters[].requestMirror.**",
        Test("routes_of_the_gateway_api_mirror_a_rule_and_a_backend"),
    ),
    (
        "GRPCRoute",
        "spec.rules[].backendRefs[].filters[].**",
        Test("headers_are_literals_and_the_first_of_a_name_counts"),
    ),
    ("GRPCRoute", "spec.rules[].backendRefs[].**", Test("calls_are_matched_by_service_method_and_metadata")),
    ("HTTPRoute", "spec.hostnames", Reported("host_names_are_reported_and_a_route_without_rules_has_one")),
    (
        "HTTPRoute",
        "spec.parentRefs[].**",
        Test("a_route_is_for_the_ports_that_its_parents_name_by_number_or_name"),
    ),
    ("HTTPRoute", "spec.rules[].name", Test("rules_are_called_by_their_route_place_and_name")),
    (
        "HTTPRoute",
        "spec.rules[].matches[].**",
        Test("queries_methods_and_regular_expressions_are_matched_and_what_matches_nothing_has_no_route"),
    ),
    (
        "HTTPRoute",
        "spec.rules[].filters[].requestMirror.**",
        Test("routes_of_the_gateway_api_mirror_a_rule_and_a_backend"),
    ),
    (
        "HTTPRoute",
        "spec.rules[].filters[].externalAuth",
        Test("a_filter_that_cannot_be_used_answers_and_is_told_in_its_route"),
    ),
    (
        "HTTPRoute",
        "spec.rules[].filters[].extensionRef.**",
        Test("a_filter_that_cannot_be_used_answers_and_is_told_in_its_route"),
    ),
    ("HTTPRoute", "spec.rules[].filters[].cors.**", Test("origins_of_cors_may_have_wildcards")),
    (
        "HTTPRoute",
        "spec.rules[].filters[].requestRedirect.**",
        Test("a_redirect_says_where_as_gateway_api_lists_it"),
    ),
    (
        "HTTPRoute",
        "spec.rules[].filters[].urlRewrite.**",
        Test("paths_are_rewritten_as_gateway_api_lists_it"),
    ),
    (
        "HTTPRoute",
        "spec.rules[].filters[].**",
        Test("headers_of_requests_are_changed_for_a_rule_and_for_a_share"),
    ),
    (
        "HTTPRoute",
        "spec.rules[].backendRefs[].filters[].requestMirror.**",
        Test("routes_of_the_gateway_api_mirror_a_rule_and_a_backend"),
    ),
    (
        "HTTPRoute",
        "spec.rules[].backendRefs[].filters[].externalAuth",
        Test("a_filter_that_cannot_be_used_answers_and_is_told_in_its_route"),
    ),
    (
        "HTTPRoute",
        "spec.rules[].backendRefs[].filters[].extensionRef.**",
        Test("a_filter_that_cannot_be_used_answers_and_is_told_in_its_route"),
    ),
    ("HTTPRoute", "spec.rules[].backendRefs[].filters[].cors.**", Test("origins_of_cors_may_have_wildcards")),
    (
        "HTTPRoute",
        "spec.rules[].backendRefs[].filters[].requestRedirect.**",
        Test("a_redirect_says_where_as_gateway_api_lists_it"),
    ),
    (
        "HTTPRoute",
        "spec.rules[].backendRefs[].filters[].urlRewrite.**",
        Test("paths_are_rewritten_as_gateway_api_lists_it"),
    ),
    (
        "HTTPRoute",
        "spec.rules[].backendRefs[].filters[].**",
        Test("headers_of_requests_are_changed_for_a_rule_and_for_a_share"),
    ),
    (
        "HTTPRoute",
        "spec.rules[].backendRefs[].**",
        Test("shares_of_broken_backends_are_kept_and_rules_without_backends_are_said"),
    ),
    (
        "HTTPRoute",
        "spec.rules[].timeouts.**",
        Test("times_of_attempts_need_a_retry_and_are_otherwise_the_requests"),
    ),
    (
        "HTTPRoute",
        "spec.rules[].retry.**",
        Test("times_of_attempts_need_a_retry_and_are_otherwise_the_requests"),
    ),
    ("TCPRoute", "spec.hostnames[]", Reported("what_gateway_routes_get_wrong_is_said")),
    (
        "TCPRoute",
        "spec.parentRefs[].**",
        Test("a_tcp_route_of_the_services_namespace_is_for_all_and_anothers_for_its_clients"),
    ),
    ("TCPRoute", "spec.rules[].backendRefs[].**", Test("a_tcp_route_splits_connections_by_weight")),
    ("TCPRoute", "spec.rules[].name", Nothing("for people: there is one rule")),
    ("TLSRoute", "spec.hostnames[]", Test("tls_routes_share_a_service_by_their_host_names")),
    ("TLSRoute", "spec.parentRefs[].**", Test("tls_routes_share_a_service_by_their_host_names")),
    ("TLSRoute", "spec.rules[].backendRefs[].**", Test("tls_routes_share_a_service_by_their_host_names")),
    ("TLSRoute", "spec.rules[].name", Nothing("for people: there is one rule")),
];

const POLICIES: [&str; 4] = [
    "spec.subsets[].trafficPolicy.portLevelSettings[]",
    "spec.subsets[].trafficPolicy",
    "spec.trafficPolicy.portLevelSettings[]",
    "spec.trafficPolicy",
];

impl Proof {
    fn test(&self) -> Option<&'static str> {
        match self {
            Test(name) | Reported(name) => Some(name),
            Nothing(_) => None,
        }
    }
}

fn is_for((kind, pattern, _): &Row, of_kind: &str, path: &str) -> bool {
    let fits = |path: &str| match pattern.strip_suffix("**") {
        Some(above) => path.starts_with(above),
        None => *pattern == path,
    };
    let mut policies = POLICIES.iter().filter_map(|place| path.strip_prefix(place));
    *kind == of_kind && (fits(path) || policies.any(|rest| fits(&format!("POLICY{rest}"))))
}

/// The names of all tests of the workspace.
fn tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = BTreeSet::new();
    let mut directories: Vec<_> =
        ["control-plane", "proxy", "certs", "tests", "examples"].map(|part| root.join(part)).into();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                directories.push(entry);
            } else if entry.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&entry).unwrap();
                let after_test = text.split("#[test]").skip(1).chain(text.split("#[tokio::test").skip(1));
                let name = |rest: &str| Some(rest.split_once("fn ")?.1.split('(').next()?.to_owned());
                found.extend(after_test.filter_map(name));
            }
        }
    }
    found
}

#[test]
fn every_field_that_is_read_has_a_test_that_proves_what_it_does() {
    let tests = tests();
    let mut used = BTreeSet::new();
    let mut missing = Vec::new();
    for kind in acted_on() {
        // Kinds of one name in several groups share their rows, if the one with the group has none.
        let has_rows = ROWS.iter().any(|(of_kind, ..)| *of_kind == kind.called);
        let of_kind = if has_rows { kind.called } else { kind.kind };
        for field in kind.known_fields() {
            let rows = ROWS.iter().enumerate().filter(|(_, row)| is_for(row, of_kind, &field.path));
            let rows: Vec<_> = rows.map(|(index, _)| index).collect();
            if rows.is_empty() {
                missing.push(format!("{} {}", kind.called, field.path));
            }
            used.extend(rows);
        }
    }
    let stale: Vec<_> = ROWS
        .iter()
        .enumerate()
        .filter(|(index, _)| !used.contains(index))
        .map(|(_, (kind, path, _))| (kind, path))
        .collect();
    let unknown: BTreeSet<_> =
        ROWS.iter().filter_map(|(.., proof)| proof.test()).filter(|name| !tests.contains(*name)).collect();
    let reasons = ROWS.iter().filter(|(.., proof)| matches!(proof, Nothing(why) if why.is_empty())).count();

    assert!(missing.is_empty(), "fields without a row: {missing:#?}");
    assert!(stale.is_empty(), "rows of fields that there are not: {stale:#?}");
    assert!(unknown.is_empty(), "tests that there are not: {unknown:#?}");
    assert_eq!(reasons, 0);
}
