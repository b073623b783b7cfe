/* Reads lines "name symbol version flags" and says for each whether the driver's cuGetProcAddress
 * answers with what dlsym finds under that symbol: same, other, absent. Run without the limiter. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>

int main(void) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    int (*ask)(const char *, void **, int, uint64_t, int *) = NULL;
    int (*init)(unsigned) = NULL;
    char name[128];
    char symbol[128];
    int version = 0;
    int flags = 0;
    *(void **)&ask = dlsym(library, "cuGetProcAddress_v2");
    *(void **)&init = dlsym(library, "cuInit");
    if (ask == NULL || init == NULL || init(0) != 0) {
        printf("no driver with cuGetProcAddress_v2\n");
        return 1;
    }
    while (scanf("%127s %127s %d %d", name, symbol, &version, &flags) == 4) {
        void *answer = NULL;
        int status = 0;
        void *found = dlsym(library, symbol);
        int result = ask(name, &answer, version, (uint64_t)flags, &status);
        const char *verdict = result != 0 || answer == NULL
                                  ? (found == NULL ? "absent" : "not-by-name")
                              : answer == found ? "same"
                              : found == NULL   ? "not-by-symbol"
                                                : "other";
        printf("%s %s\n", symbol, verdict);
    }
    return 0;
}
