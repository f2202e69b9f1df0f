# The sidecar. Runs as a user of its own: its traffic is what redirection leaves alone.
FROM scratch
COPY selvedge-proxy /selvedge-proxy
USER 2102:2102
ENTRYPOINT ["/selvedge-proxy"]
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["/selvedge-proxy", "wait", "--timeout", "2s"]
