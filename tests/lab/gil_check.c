/* What the one-line mend of PyC_IsInterpreterActive() does, from outside: a thread that does not hold
 * the GIL has no thread state to ask. cc -shared -fPIC -o gil_check.so gil_check.c -ldl
 * LD_PRELOAD=./gil_check.so blender … */
#define _GNU_SOURCE
#include <dlfcn.h>

int PyGILState_Check(void);

void *PyThreadState_GetDict(void)
{
    static void *(*original)(void);
    if (!original) {
        original = (void *(*)(void))dlsym(RTLD_NEXT, "PyThreadState_GetDict");
    }
    return PyGILState_Check() ? original() : 0;
}
