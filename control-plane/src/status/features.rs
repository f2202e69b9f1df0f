//! The features of the Gateway API that a gateway of ours has (`GatewayClass` `status.supportedFeatures`), by the names of
//! <https://github.com/kubernetes-sigs/gateway-api/tree/main/pkg/features>.

/// Each feature, and the test that shows it with the real programs. A list in the order of their names, as the API asks.
macro_rules! features {
    ($($name:literal: $test:literal,)*) => {
        /// The names, in their order.
        pub(super) const FEATURES: &[&str] = &[$($name),*];

        #[cfg(test)]
        const PROOFS: &[(&str, &str)] = &[$(($name, $test)),*];
    };
}

features! {
    "BackendTLSPolicy": "a_backend_is_called_over_tls_and_believed_by_authority_and_name",
    "BackendTLSPolicySANValidation": "a_backend_is_called_over_tls_and_believed_by_authority_and_name",
    "GRPCRoute": "grpc_from_outside_reaches_its_server_and_failures_are_statuses",
    "GRPCRouteNamedRouteRule": "calls_are_shared_changed_copied_and_counted_as_their_route_says",
    "Gateway": "a_request_from_outside_reaches_the_app_with_the_gateways_identity",
    "GatewayBackendClientCertificate": "a_backend_sees_the_certificate_that_its_gateway_shows",
    "GatewayFrontendClientCertificateValidation": "a_client_must_show_a_certificate_of_the_authority_and_the_app_is_told_of_it",
    "GatewayFrontendClientCertificateValidationInsecureFallback": "a_client_without_a_certificate_is_served_where_the_gateway_lets_it_and_the_app_can_tell",
    "GatewayHTTPListenerIsolation": "listeners_of_one_port_are_isolated_by_their_host_names",
    "GatewayHTTPSListenerDetectMisdirectedRequests": "each_host_has_its_listener_and_a_new_certificate_is_for_new_connections",
    "GatewayInfrastructurePropagation": "a_gateway_is_made_kept_and_removed",
    "GatewayListenerSet": "another_teams_listeners_are_served_beside_those_of_the_gateway",
    "GatewayPort8080": "listeners_come_and_go_while_others_serve",
    "HTTPRoute": "a_request_from_outside_reaches_the_app_with_the_gateways_identity",
    "HTTPRoute303RedirectStatusCode": "a_redirect_says_where_and_the_port_of_the_listener_counts",
    "HTTPRoute307RedirectStatusCode": "a_redirect_says_where_and_the_port_of_the_listener_counts",
    "HTTPRoute308RedirectStatusCode": "a_redirect_says_where_and_the_port_of_the_listener_counts",
    "HTTPRouteBackendProtocolH2C": "an_app_gets_the_version_that_is_declared_for_it_whatever_its_clients_speak",
    "HTTPRouteBackendProtocolWebSocket": "a_websocket_from_outside_passes_both_ways",
    "HTTPRouteBackendRequestHeaderModification": "paths_hosts_and_headers_are_changed_for_a_rule_and_for_a_share",
    "HTTPRouteBackendTimeout": "requests_end_when_their_time_is_over",
    "HTTPRouteCORS": "pages_of_the_origins_that_a_filter_names_may_call",
    "HTTPRouteHostRewrite": "paths_hosts_and_headers_are_changed_for_a_rule_and_for_a_share",
    "HTTPRouteMethodMatching": "requests_follow_the_most_specific_match_of_all_routes",
    "HTTPRouteNamedRouteRule": "a_route_may_name_a_port_and_its_rules_have_names",
    "HTTPRouteParentRefPort": "a_route_may_name_a_port_and_its_rules_have_names",
    "HTTPRoutePathRedirect": "a_redirect_says_where_and_the_port_of_the_listener_counts",
    "HTTPRoutePathRewrite": "paths_hosts_and_headers_are_changed_for_a_rule_and_for_a_share",
    "HTTPRoutePortRedirect": "a_redirect_says_where_and_the_port_of_the_listener_counts",
    "HTTPRouteQueryParamMatching": "requests_follow_the_most_specific_match_of_all_routes",
    "HTTPRouteRequestMirror": "copies_go_to_every_mirror_as_often_as_it_says",
    "HTTPRouteRequestMultipleMirrors": "copies_go_to_every_mirror_as_often_as_it_says",
    "HTTPRouteRequestPercentageMirror": "copies_go_to_every_mirror_as_often_as_it_says",
    "HTTPRouteRequestTimeout": "requests_end_when_their_time_is_over",
    "HTTPRouteResponseHeaderModification": "paths_hosts_and_headers_are_changed_for_a_rule_and_for_a_share",
    "HTTPRouteRetry": "requests_that_fail_are_retried_as_often_as_their_rule_says",
    "HTTPRouteRetryBackendTimeout": "requests_that_fail_are_retried_as_often_as_their_rule_says",
    "HTTPRouteRetryConnectionError": "requests_whose_connection_breaks_are_retried",
    "HTTPRouteSchemeRedirect": "a_redirect_says_where_and_the_port_of_the_listener_counts",
    "ListenerSet": "another_teams_listeners_are_served_beside_those_of_the_gateway",
    "ReferenceGrant": "another_teams_listeners_are_served_beside_those_of_the_gateway",
    "TCPRoute": "tcp_and_what_was_inside_tls_reach_their_apps",
    "TLSRoute": "tls_passes_through_to_the_app_of_its_name",
    "TLSRouteModeMixed": "on_one_port_tls_ends_for_one_name_and_passes_through_for_another",
    "TLSRouteModeTerminate": "on_one_port_tls_ends_for_one_name_and_passes_through_for_another",
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn texts_below(folder: &Path) -> String {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let text = |path: std::path::PathBuf| match path.is_dir() {
            true => texts_below(&path),
            false if path.extension().is_some_and(|end| end == "rs") => fs::read_to_string(path).unwrap(),
            false => String::new(),
        };
        entries.map(text).collect()
    }

    #[test]
    fn every_feature_is_shown_by_a_test_with_the_real_programs() {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
        let texts = texts_below(&tests.join("e2e")) + &texts_below(&tests.join("kubernetes"));

        assert!(FEATURES.is_sorted() && !FEATURES.is_empty());
        for (name, test) in PROOFS {
            assert!(texts.contains(&format!("async fn {test}(")), "{name}: there is no test {test}");
        }
    }

    #[test]
    fn every_test_that_the_guide_names_is_there() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let guide = fs::read_to_string(here.join("conformance.md")).unwrap();
        let folders = ["../tests/e2e", "../tests/kubernetes", "src", "model/src"];
        let texts: String = folders.map(|folder| texts_below(&here.join(folder))).concat();
        let rows = guide.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
        let rows: Vec<_> = rows.filter(|(_, ours)| ours.starts_with('`')).collect();

        assert!(rows.len() > 40, "{} rows", rows.len());
        for (theirs, ours) in rows {
            for test in ours.split('`').skip(1).step_by(2) {
                assert!(texts.contains(&format!("fn {test}(")), "{theirs}: there is no test {test}");
            }
        }
    }
}
