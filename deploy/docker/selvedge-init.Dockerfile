# Sets the redirection rules of the network namespace that it runs in: needs NET_ADMIN, and to be root for
# it. nft and its libraries come from the host that built the image (see `collect`).
FROM scratch
COPY tools /
COPY selvedge-init /selvedge-init
ENV PATH=/usr/sbin
ENTRYPOINT ["/selvedge-init"]
