/*
 * Two functions of mbedTLS, empty.
 *
 * Debian's libgit2 is built with mbedTLS and reads all of the system's certificates when it
 * starts, 5 ms in which `memfs apply` could be done.  We never use its transports: git, as a
 * child, does the network.  The dynamic linker looks into the program first (meson.build links it
 * with -rdynamic), so libgit2 finds these two instead of the library's.
 *
 * This fails safe.  The chain of trusted certificates stays empty, so a TLS connection of libgit2,
 * should anybody ever open one, trusts nobody.  libcurl and libmicrohttpd have other TLS libraries
 * and do not notice.  With a libgit2 that uses OpenSSL or GnuTLS nothing calls these, and they do
 * nothing.
 */
int mbedtls_x509_crt_parse_file(void *chain, const char *path);
int mbedtls_x509_crt_parse_path(void *chain, const char *path);

/* 0: everything was read */
int mbedtls_x509_crt_parse_file(void *chain, const char *path)
{
    (void)chain;
    (void)path;
    return 0;
}

int mbedtls_x509_crt_parse_path(void *chain, const char *path)
{
    (void)chain;
    (void)path;
    return 0;
}
