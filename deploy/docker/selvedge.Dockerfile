# The command that people type. The examples' apps are in it, too: `selvedge app ...`.
FROM scratch
COPY selvedge /selvedge
USER 65534:65534
ENTRYPOINT ["/selvedge"]
