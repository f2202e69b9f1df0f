# The control plane. /config is read; /data holds its CA, and /tokens what sidecars join with.
FROM scratch
COPY selvedge-control-plane /selvedge-control-plane
# By which servers of issuers' keys (jwksUri) are known.
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# Volumes that are mounted here begin as copies of these directories, and so belong to the right user.
COPY --chown=2102:2102 empty /data
COPY --chown=2102:2102 empty /tokens
USER 2102:2102
ENV SELVEDGE_CONFIG_DIR=/config SELVEDGE_DATA_DIR=/data
ENTRYPOINT ["/selvedge-control-plane"]
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["/selvedge-control-plane", "wait", "--timeout", "2s"]
