/* A resolver for which a name that ends in ".slow" takes five seconds and is not found; preloaded into
   a process. All other names are resolved as usual. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>

int getaddrinfo(const char *restrict node, const char *restrict service,
                const struct addrinfo *restrict hints, struct addrinfo **restrict result) {
  static int (*usual)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
  size_t length = node ? strlen(node) : 0;
  if (length > 5 && strcmp(node + length - 5, ".slow") == 0) {
    sleep(5);
    return EAI_AGAIN;
  }
  if (!usual) usual = dlsym(RTLD_NEXT, "getaddrinfo");
  return usual(node, service, hints, result);
}
