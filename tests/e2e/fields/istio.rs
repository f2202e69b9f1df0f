//! Fields of Istio's kinds, but for `VirtualService` and policies.

use super::{
    Proof::{Nothing, Reported, Test},
    Row,
};

const ISTIO_GATEWAY: &str = "Gateway.networking.istio.io";
const SHUTS: &str = "what_cannot_be_checked_shuts_a_server_and_is_reported";

pub(super) const ROWS: &[Row] = &[
    ("WorkloadEntry", "spec.address", Test("a_workload_by_name_follows_its_name_and_keeps_its_identity")),
    ("WorkloadEntry", "spec.labels.*", Test("endpoints_say_where_to_dial_and_whom_to_expect")),
    ("WorkloadEntry", "spec.ports.*", Test("target_ports_follow_the_workload_then_the_service")),
    (
        "WorkloadEntry",
        "spec.serviceAccount",
        Test("either_protocol_arrives_with_the_callers_proven_identity"),
    ),
    (
        "WorkloadEntry",
        "spec.locality",
        Test("the_nearest_are_called_and_when_they_fail_the_next_ones_until_they_come_home"),
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
    ("ServiceEntry", "spec.endpoints[].locality", Test("an_endpoint_is_where_its_service_entry_says")),
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
    (ISTIO_GATEWAY, "spec.selector.*", Test("what_does_not_fit_together_is_reported_by_line")),
    (ISTIO_GATEWAY, "spec.servers[].name", Nothing("for people: which server it is")),
    (ISTIO_GATEWAY, "spec.servers[].bind", Reported("what_a_server_says_and_nobody_acts_on_is_reported")),
    (
        ISTIO_GATEWAY,
        "spec.servers[].defaultEndpoint",
        Reported("what_a_server_says_and_nobody_acts_on_is_reported"),
    ),
    (ISTIO_GATEWAY, "spec.servers[].hosts[]", Test("the_hosts_served_are_those_that_both_have")),
    (ISTIO_GATEWAY, "spec.servers[].port.name", Test("what_istio_refuses_of_a_gateway_is_refused")),
    (
        ISTIO_GATEWAY,
        "spec.servers[].port.number",
        Test("a_virtual_service_is_followed_at_the_gateway_that_it_names"),
    ),
    (ISTIO_GATEWAY, "spec.servers[].port.protocol", Test("each_protocol_is_one_that_is_served")),
    (
        ISTIO_GATEWAY,
        "spec.servers[].port.targetPort",
        Reported("what_a_server_says_and_nobody_acts_on_is_reported"),
    ),
    (
        ISTIO_GATEWAY,
        "spec.servers[].tls.httpsRedirect",
        Test("a_server_that_redirects_to_https_serves_nothing_else"),
    ),
    (ISTIO_GATEWAY, "spec.servers[].tls.mode", Test("each_mode_of_tls_says_who_shows_a_certificate")),
    (
        ISTIO_GATEWAY,
        "spec.servers[].tls.credentialName",
        Test("each_mode_of_tls_says_who_shows_a_certificate"),
    ),
    (
        ISTIO_GATEWAY,
        "spec.servers[].tls.credentialNames[]",
        Test("each_mode_of_tls_says_who_shows_a_certificate"),
    ),
    (
        ISTIO_GATEWAY,
        "spec.servers[].tls.caCertCredentialName",
        Test("each_mode_of_tls_says_who_shows_a_certificate"),
    ),
    (
        ISTIO_GATEWAY,
        "spec.servers[].tls.subjectAltNames[]",
        Test("each_mode_of_tls_says_who_shows_a_certificate"),
    ),
    (
        ISTIO_GATEWAY,
        "spec.servers[].tls.minProtocolVersion",
        Test("each_mode_of_tls_says_who_shows_a_certificate"),
    ),
    (
        ISTIO_GATEWAY,
        "spec.servers[].tls.maxProtocolVersion",
        Reported("what_a_server_says_and_nobody_acts_on_is_reported"),
    ),
    (
        ISTIO_GATEWAY,
        "spec.servers[].tls.cipherSuites[]",
        Reported("what_a_server_says_and_nobody_acts_on_is_reported"),
    ),
    (ISTIO_GATEWAY, "spec.servers[].tls.serverCertificate", Reported(SHUTS)),
    (ISTIO_GATEWAY, "spec.servers[].tls.privateKey", Reported(SHUTS)),
    (ISTIO_GATEWAY, "spec.servers[].tls.caCertificates", Reported(SHUTS)),
    (ISTIO_GATEWAY, "spec.servers[].tls.caCrl", Reported(SHUTS)),
    (ISTIO_GATEWAY, "spec.servers[].tls.tlsCertificates", Reported(SHUTS)),
    (ISTIO_GATEWAY, "spec.servers[].tls.verifyCertificateSpki[]", Reported(SHUTS)),
    (ISTIO_GATEWAY, "spec.servers[].tls.verifyCertificateHash[]", Reported(SHUTS)),
    ("DestinationRule", "spec.exportTo[]", Test("a_destination_rule_holds_for_those_whom_it_is_for")),
    ("DestinationRule", "spec.host", Test("a_clients_own_namespace_beats_the_services_and_that_the_root")),
    ("DestinationRule", "spec.subsets[].labels.*", Test("canary_90_10")),
    ("DestinationRule", "spec.subsets[].name", Test("canary_90_10")),
    (
        "DestinationRule",
        "spec.workloadSelector.matchLabels.*",
        Test("a_rule_is_for_those_clients_alone_that_it_selects_and_follows_their_labels"),
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
        "POLICY.connectionPool.http.useClientProtocol",
        Test("a_gateway_speaks_to_apps_as_its_client_does_if_the_policy_says_so"),
    ),
    (
        "DestinationRule",
        "POLICY.connectionPool.tcp.tcpKeepalive.**",
        Test("the_kernel_asks_whether_a_server_is_there_as_the_rule_says"),
    ),
    (
        "DestinationRule",
        "POLICY.proxyProtocol.version",
        Test("a_server_outside_the_mesh_is_told_the_client_by_the_proxy_protocol"),
    ),
    ("DestinationRule", "POLICY.tunnel.protocol", Test("tcp_goes_as_the_bodies_of_a_post_and_its_answer")),
    ("DestinationRule", "POLICY.tunnel.targetHost", Test("tcp_goes_through_an_http_proxy_outside_the_mesh")),
    ("DestinationRule", "POLICY.tunnel.targetPort", Test("tcp_goes_through_an_http_proxy_outside_the_mesh")),
    ("DestinationRule", "POLICY.retryBudget.**", Test("no_more_retries_are_made_than_the_budget_allows")),
    (
        "DestinationRule",
        "POLICY.connectionPool.tcp.maxConnections",
        Test("a_request_waits_for_the_one_connection_and_another_one_is_refused"),
    ),
    (
        "DestinationRule",
        "POLICY.loadBalancer.consistentHash.httpHeaderName",
        Test("a_key_has_the_same_endpoint_at_every_sidecar_and_after_a_restart"),
    ),
    (
        "DestinationRule",
        "POLICY.loadBalancer.consistentHash.maglev.tableSize",
        Test("a_key_has_the_same_endpoint_at_every_sidecar_and_after_a_restart"),
    ),
    (
        "DestinationRule",
        "POLICY.loadBalancer.consistentHash.minimumRingSize",
        Test("a_key_has_the_same_endpoint_at_every_sidecar_and_after_a_restart"),
    ),
    (
        "DestinationRule",
        "POLICY.loadBalancer.consistentHash.ringHash.minimumRingSize",
        Test("a_key_has_the_same_endpoint_at_every_sidecar_and_after_a_restart"),
    ),
    (
        "DestinationRule",
        "POLICY.loadBalancer.consistentHash.httpCookie.name",
        Test("a_client_without_the_cookie_is_given_one_that_leads_back"),
    ),
    (
        "DestinationRule",
        "POLICY.loadBalancer.consistentHash.httpCookie.path",
        Test("a_client_without_the_cookie_is_given_one_that_leads_back"),
    ),
    (
        "DestinationRule",
        "POLICY.loadBalancer.consistentHash.httpCookie.attributes[].**",
        Test("a_client_without_the_cookie_is_given_one_that_leads_back"),
    ),
    (
        "DestinationRule",
        "POLICY.loadBalancer.consistentHash.httpCookie.ttl",
        Test("a_cookie_without_a_ttl_is_the_apps_own_and_one_of_zero_lasts_until_the_browser_is_closed"),
    ),
    (
        "DestinationRule",
        "POLICY.loadBalancer.consistentHash.httpQueryParameterName",
        Test("requests_are_kept_together_by_a_query_parameter_or_by_their_client"),
    ),
    (
        "DestinationRule",
        "POLICY.loadBalancer.consistentHash.useSourceIp",
        Test("requests_are_kept_together_by_a_query_parameter_or_by_their_client"),
    ),
    (
        "DestinationRule",
        "POLICY.loadBalancer.localityLbSetting.distribute[].**",
        Test("each_place_gets_the_share_that_distribute_gives_it"),
    ),
    (
        "DestinationRule",
        "POLICY.loadBalancer.localityLbSetting.enabled",
        Test("the_nearest_are_called_and_when_they_fail_the_next_ones_until_they_come_home"),
    ),
    (
        "DestinationRule",
        "POLICY.loadBalancer.localityLbSetting.failover[].**",
        Test("failover_leads_to_the_region_that_it_names_and_labels_go_before_places"),
    ),
    (
        "DestinationRule",
        "POLICY.loadBalancer.localityLbSetting.failoverPriority[]",
        Test("failover_leads_to_the_region_that_it_names_and_labels_go_before_places"),
    ),
    (
        "DestinationRule",
        "POLICY.loadBalancer.warmup.**",
        Test("a_new_endpoint_gets_little_while_it_warms_up"),
    ),
    (
        "DestinationRule",
        "POLICY.loadBalancer.warmupDurationSecs",
        Test("what_a_load_balancer_says_is_read_as_istio_reads_it"),
    ),
    (
        "DestinationRule",
        "POLICY.loadBalancer.simple",
        Test("rr_is_round_robin_and_wrr_the_same_with_weights"),
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
    (
        "DestinationRule",
        "POLICY.outlierDetection.consecutiveLocalOriginFailures",
        Test("attempts_without_an_answer_count_as_gateway_errors_unless_they_are_counted_apart"),
    ),
    (
        "DestinationRule",
        "POLICY.outlierDetection.minHealthPercent",
        Test("if_too_few_endpoints_are_healthy_all_are_called"),
    ),
    (
        "DestinationRule",
        "POLICY.outlierDetection.splitExternalLocalOriginErrors",
        Test("what_counts_against_an_endpoint_may_be_split_by_whether_it_answered"),
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
    (
        "DestinationRule",
        "POLICY.tls.credentialName",
        Test("a_destination_rule_names_a_secret_of_the_gateway_that_calls"),
    ),
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
    (
        "Telemetry",
        "spec.selector.matchLabels.*",
        Test("a_workload_replaces_its_namespace_and_that_the_mesh_field_by_field"),
    ),
    (
        "Telemetry",
        "spec.targetRef.**",
        Test("of_several_documents_of_one_rank_the_first_counts_and_the_others_are_reported"),
    ),
    (
        "Telemetry",
        "spec.targetRefs[].**",
        Test("of_several_documents_of_one_rank_the_first_counts_and_the_others_are_reported"),
    ),
    (
        "Telemetry",
        "spec.accessLogging[].match.mode",
        Test("an_access_log_is_turned_on_and_off_while_sidecars_run"),
    ),
    (
        "Telemetry",
        "spec.accessLogging[].providers[].name",
        Test("an_access_log_is_turned_on_and_off_while_sidecars_run"),
    ),
    (
        "Telemetry",
        "spec.accessLogging[].disabled",
        Test("an_access_log_is_turned_on_and_off_while_sidecars_run"),
    ),
    (
        "Telemetry",
        "spec.accessLogging[].filter.expression",
        Test("an_access_log_is_turned_on_and_off_while_sidecars_run"),
    ),
    (
        "Telemetry",
        "spec.tracing[].match.mode",
        Test("the_share_changes_live_for_the_mesh_a_namespace_and_a_direction"),
    ),
    (
        "Telemetry",
        "spec.tracing[].providers[].name",
        Test("a_request_is_one_trace_through_two_sidecars_with_a_span_for_each_attempt"),
    ),
    (
        "Telemetry",
        "spec.tracing[].randomSamplingPercentage",
        Test("the_share_changes_live_for_the_mesh_a_namespace_and_a_direction"),
    ),
    (
        "Telemetry",
        "spec.tracing[].disableSpanReporting",
        Test("the_share_changes_live_for_the_mesh_a_namespace_and_a_direction"),
    ),
    (
        "Telemetry",
        "spec.tracing[].customTags.**",
        Test("a_request_is_one_trace_through_two_sidecars_with_a_span_for_each_attempt"),
    ),
    (
        "Telemetry",
        "spec.tracing[].useRequestIdForTraceSampling",
        Reported("what_is_not_understood_is_an_error_at_its_field_and_what_is_not_acted_on_is_reported"),
    ),
    (
        "Telemetry",
        "spec.tracing[].enableIstioTags",
        Reported("what_is_not_understood_is_an_error_at_its_field_and_what_is_not_acted_on_is_reported"),
    ),
    (
        "Telemetry",
        "spec.metrics[].providers[].name",
        Test("all_metrics_are_off_until_a_later_override_and_for_providers_that_are_no_prometheus"),
    ),
    (
        "Telemetry",
        "spec.metrics[].reportingInterval",
        Reported("what_is_not_understood_is_an_error_at_its_field_and_what_is_not_acted_on_is_reported"),
    ),
    (
        "Telemetry",
        "spec.metrics[].overrides[].match.metric",
        Test("istios_metrics_lose_and_gain_labels_and_disappear_while_sidecars_run"),
    ),
    (
        "Telemetry",
        "spec.metrics[].overrides[].match.mode",
        Test("metrics_are_changed_for_the_mesh_a_namespace_and_a_workload_each_on_top_of_the_other"),
    ),
    (
        "Telemetry",
        "spec.metrics[].overrides[].match.customMetric",
        Reported("what_is_not_understood_is_an_error_at_its_field_and_what_is_not_acted_on_is_reported"),
    ),
    (
        "Telemetry",
        "spec.metrics[].overrides[].disabled",
        Test("istios_metrics_lose_and_gain_labels_and_disappear_while_sidecars_run"),
    ),
    (
        "Telemetry",
        "spec.metrics[].overrides[].tagOverrides.*.operation",
        Test("istios_metrics_lose_and_gain_labels_and_disappear_while_sidecars_run"),
    ),
    (
        "Telemetry",
        "spec.metrics[].overrides[].tagOverrides.*.value",
        Test("istios_metrics_lose_and_gain_labels_and_disappear_while_sidecars_run"),
    ),
];
