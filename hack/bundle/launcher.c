/* The executable `podwire`, in place of PyInstaller's bootloader: the interpreter, linked statically, and the memory of
 * one that has already started.
 *
 * Starting the interpreter and running podwire's modules takes five times the instructions of what an ADD does after
 * that, and always comes to the same. So the build does it once: `podwire --record` writes the memory that it has then
 * to podwire.d/podwire.memory, and a plugin maps that file instead. Pages are shared with all other calls until they
 * are written to.
 *
 * A call, then: main -> map_memory -> restore -> give (arguments, environment) -> resume in memory.py -> main in
 * cni/main.py, which reads stdin. Without a memory, and for podwired: main -> start_interpreter -> entry.py -> the same.
 *
 * How that can be right
 *
 * - The program is not position-independent, so its functions and variables have the same addresses in each process.
 * - All that the interpreter allocates while it is recorded lies at HEAP: malloc and its kin are wrapped by the linker
 *   (libc's own memory is not), the arenas of objects come from an allocator of ours.
 * - The dynamic loader writes to our variables at four places (copy relocations): environ, stdin, stdout and stderr are
 *   kept. What it writes to the global offset table is read-only by then (-z now) and not recorded.
 * - A restored process is to the interpreter what a child is after fork(2): another thread, no locks held. It has a
 *   function for that. Standard streams, arguments, environment and signals are taken from the new process.
 * - Nothing is recorded that was loaded with dlopen(3), and nothing that was read from the machine: see memory.py.
 * - A record belongs to one build: BUILD is in the program, in podwire.code and in podwire.memory. If they differ, if a
 *   file is missing or cannot be mapped, the interpreter starts as usual, as it always does for podwired. The seed of
 *   its hashes is recorded, too: podwired, which reads what users of a cluster write, has a random one.
 */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#define Py_BUILD_CORE /* for the key of the thread's state, see restore() */
#include <Python.h>
#include <internal/pycore_runtime.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>

#if PY_VERSION_HEX >> 16 != 0x030B || !defined __x86_64__
#error "tried with CPython 3.11 on x86-64 alone"
#endif

#define PAGE 4096UL
#define HEAP ((char *)(1UL << 32)) /* far from all that the kernel and the dynamic loader map */
#define HEAP_SIZE (64UL << 20)
#define ROOM (1UL << 20) /* bytes that the interpreter needs before it can answer that there is not enough memory */
#define WHOLE_PAGES(address) (((address) + PAGE - 1) & ~(PAGE - 1))

extern char __data_start, _end; /* of the linker: the program's variables */
#define BEGIN_OF_DATA ((char *)((size_t)&__data_start & ~(PAGE - 1)))
#define END_OF_DATA ((char *)WHOLE_PAGES((size_t)&_end))

static char home[PATH_MAX]; /* podwire.d */
static int recording;
static size_t used; /* bytes of HEAP */
static struct sigaction interrupt;

static struct Block { /* of HEAP; one that was freed has the next such block in its contents */
    size_t size;      /* without the header, a multiple of 16 */
    size_t unused;
    struct Block *next;
} *reusable;

#define HEADER offsetof(struct Block, next)

struct Header {
    char build[32];
    char *data, *end_of_data, *end_of_heap;
};

static int is_recorded(const void *block) { return (char *)block >= HEAP && (char *)block < HEAP + HEAP_SIZE; }

static void *take(size_t size, size_t alignment) {
    size_t start = (used + alignment - 1) & ~(alignment - 1);
    if (size > HEAP_SIZE - start) {
        return NULL;
    }
    used = start + size;
    return HEAP + start;
}

/* The linker leads the interpreter's calls of malloc here. What is recorded is small if freed blocks are reused. */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void __real_free(void *block);

static struct Block *block_of(void *contents) { return (struct Block *)((char *)contents - HEADER); }

void *__wrap_malloc(size_t size) {
    if (!recording) {
        return __real_malloc(size);
    }
    size = (size / 16 + 1) * 16;
    for (struct Block **place = &reusable; *place; place = &(*place)->next) {
        struct Block *block = *place;
        if (block->size == size) {
            *place = block->next;
            return &block->next;
        }
        if (block->size >= size + HEADER + 16) { /* its end is enough */
            block->size -= HEADER + size;
            block = (struct Block *)((char *)&block->next + block->size);
            block->size = size;
            return &block->next;
        }
    }
    struct Block *block = take(HEADER + size, 16);
    if (!block) {
        return NULL;
    }
    block->size = size;
    return &block->next;
}

void *__wrap_calloc(size_t count, size_t size) {
    if (!recording) {
        return __real_calloc(count, size);
    }
    size_t total;
    void *block = __builtin_mul_overflow(count, size, &total) ? NULL : __wrap_malloc(total);
    return block ? memset(block, 0, total) : NULL;
}

void __wrap_free(void *block) {
    if (!is_recorded(block)) {
        __real_free(block);
    } else if (recording) {
        struct Block *freed = block_of(block);
        freed->next = reusable;
        reusable = freed;
    }
}

void *__wrap_realloc(void *block, size_t size) {
    if (block && !is_recorded(block)) {
        return __real_realloc(block, size);
    }
    size_t before = block ? block_of(block)->size : 0;
    if (block && size <= before) {
        return block;
    }
    void *larger = __wrap_malloc(size);
    if (larger && block) {
        memcpy(larger, block, before);
        __wrap_free(block);
    }
    return larger;
}

static void *allocate_arena(void *context, size_t size) {
    (void)context;
    if (recording) {
        return take(size, PAGE);
    }
    void *arena = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return arena == MAP_FAILED ? NULL : arena;
}

static void free_arena(void *context, void *arena, size_t size) {
    (void)context;
    if (!is_recorded(arena)) {
        munmap(arena, size);
    }
}

/* Python 3.12's os.setns: without it, every ADD would have to load ctypes' C half. */
static PyObject *enter_namespace(PyObject *module, PyObject *const *arguments, Py_ssize_t count) {
    (void)module;
    int descriptor = count == 2 ? (int)PyLong_AsLong(arguments[0]) : -1;
    int kind = count == 2 ? (int)PyLong_AsLong(arguments[1]) : -1;
    if (PyErr_Occurred()) {
        return NULL;
    }
    return setns(descriptor, kind) < 0 ? PyErr_SetFromErrno(PyExc_OSError) : Py_NewRef(Py_None);
}

static PyMethodDef additions[] = {
    {"setns", (PyCFunction)(void (*)(void))enter_namespace, METH_FASTCALL, "setns(fd, nstype)"},
    {NULL, NULL, 0, NULL},
};

static _Noreturn void fail(const char *what) {
    if (Py_IsInitialized()) {
        PyErr_Print(); /* ends the process with the status of a SystemExit */
    }
    fprintf(stderr, "podwire: %s\n", what);
    _exit(1);
}

static void check(PyStatus status) {
    if (PyStatus_Exception(status)) {
        Py_ExitStatusException(status);
    }
}

/* As PyInstaller's bootloader does it: isolated from PYTHON* variables, site and the machine's own modules. */
static void start_interpreter(int argc, char **argv) {
    PyObjectArenaAllocator arenas = {NULL, allocate_arena, free_arena};
    PyObject_SetArenaAllocator(&arenas);
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    check(Py_PreInitialize(&before));
    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.write_bytecode = 0;
    config.optimization_level = 2;
    config.install_signal_handlers = 1;
    config.pathconfig_warnings = 0;
    config.parse_argv = 0;
    config.use_hash_seed = recording; /* with seed 0, so that each build records the same */
    wchar_t *folder = Py_DecodeLocale(home, NULL), library[PATH_MAX + 32];
    if (!folder) {
        fail("the bundle's folder cannot be decoded");
    }
    swprintf(library, sizeof library / sizeof *library, L"%ls/base_library.zip", folder);
    wchar_t **folders[] = {&config.home, &config.prefix, &config.exec_prefix, &config.base_prefix,
                           &config.base_exec_prefix, &config.stdlib_dir};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        check(PyConfig_SetString(&config, folders[i], folder));
    }
    wchar_t **programs[] = {&config.program_name, &config.executable, &config.base_executable};
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        check(PyConfig_SetBytesString(&config, programs[i], argv[0]));
    }
    config.module_search_paths_set = 1;
    check(PyWideStringList_Append(&config.module_search_paths, library));
    if (!recording) { /* a folder that is searched is remembered by its whole path */
        check(PyWideStringList_Append(&config.module_search_paths, folder));
    }
    check(PyConfig_SetBytesArgv(&config, argc, argv));
    check(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
    PyMem_RawFree(folder);
    PyObject *posix = PyImport_ImportModule("posix"), *path = PyUnicode_DecodeFSDefault(home);
    if (!posix || !path || PyModule_AddFunctions(posix, additions) || PySys_SetObject("_MEIPASS", path)) {
        fail("the interpreter cannot be set up");
    }
    Py_DECREF(path);
    Py_DECREF(posix);
}

static void write_all(int file, const char *data, size_t size) {
    for (ssize_t written; size; data += written, size -= written) {
        if ((written = write(file, data, size)) < 0) {
            fail("podwire.memory cannot be written");
        }
    }
}

/* Runs in the folder of the bundle: no path of the build machine is recorded. */
static void record(int argc, char **argv) {
    if (mmap(HEAP, HEAP_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != HEAP) {
        fail("the addresses of the heap are in use");
    }
    recording = 1;
    signal(SIGINT, SIG_DFL); /* a build in the background is started with it ignored, and so would be every call */
    start_interpreter(argc, argv);
    if (!PyImport_ImportModule("memory")) {
        fail("memory.py has failed");
    }
    recording = 0;
    PyThreadState_Get()->native_thread_id = 0; /* no number of the build is recorded */
    sigaction(SIGINT, NULL, &interrupt);
    struct Header header = {BUILD, BEGIN_OF_DATA, END_OF_DATA, HEAP + WHOLE_PAGES(used)};
    char page[PAGE] = {0};
    memcpy(page, &header, sizeof header);
    int file = open("podwire.d/podwire.memory", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    write_all(file, page, PAGE);
    write_all(file, header.data, header.end_of_data - header.data);
    write_all(file, HEAP, header.end_of_heap - HEAP);
    _exit(close(file) < 0);
}

static int open_beside(const char *name) {
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", home, name);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static _Noreturn void lack_memory(void) {
    static const char answer[] =
        "{\"cniVersion\":\"1.1.0\",\"code\":100,\"msg\":\"podwire cannot be loaded: there is not enough memory\"}\n";
    _exit(write(STDOUT_FILENO, answer, sizeof answer - 1) >= 0);
}

/* Returns true if code and memory are whole, and of the build of this program. */
static int are_ours(int code, int file, struct Header *header) {
    char build[sizeof header->build];
    struct stat status;
    return pread(code, build, sizeof build, 8) == sizeof build && !memcmp(build, BUILD, sizeof build) &&
           pread(file, header, sizeof *header, 0) == sizeof *header && !memcmp(header->build, BUILD, sizeof build) &&
           header->data == BEGIN_OF_DATA && header->end_of_data == END_OF_DATA && fstat(file, &status) == 0 &&
           status.st_size == (off_t)PAGE + (header->end_of_data - header->data) + (header->end_of_heap - HEAP);
}

/* Replaces the program's memory by what was recorded, and returns a descriptor of podwire.code; -1 if that cannot be. */
static int map_memory(void) {
    struct Header header;
    int code = open_beside("podwire.code"), file = open_beside("podwire.memory");
    char *heap = MAP_FAILED;
    off_t data = PAGE;
    if (are_ours(code, file, &header)) {
        heap = mmap(HEAP, header.end_of_heap - HEAP, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED_NOREPLACE, file,
                    data + (header.end_of_data - header.data));
        void *room = mmap(NULL, ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if ((heap == MAP_FAILED || room == MAP_FAILED) && errno == ENOMEM) {
            lack_memory();
        }
        munmap(room, ROOM);
    }
    if (heap != HEAP) {
        close(file);
        close(code);
        return -1;
    }
    char **variables = environ, beside[PATH_MAX];
    FILE *streams[] = {stdin, stdout, stderr};
    strcpy(beside, home);
    /* The first and the last page may not be ours alone. */
    char *first = (char *)WHOLE_PAGES((size_t)&__data_start), *last = (char *)((size_t)&_end & ~(PAGE - 1));
    ssize_t before = first - &__data_start, after = &_end - last;
    if (mmap(first, last - first, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, file,
             data + (first - header.data)) != first ||
        pread(file, &__data_start, before, data + (&__data_start - header.data)) != before ||
        pread(file, last, after, data + (last - header.data)) != after) {
        lack_memory(); /* neither the old variables nor the new ones */
    }
    environ = variables;
    stdin = streams[0];
    stdout = streams[1];
    stderr = streams[2];
    strcpy(home, beside);
    close(file);
    return code;
}

/* Opens /dev/null for closed standard streams, for the opposite direction: reading and writing fail as before. */
static void occupy_closed_streams(void) {
    for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; stream++) {
        if (fcntl(stream, F_GETFD) < 0) {
            open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
        }
    }
}

/* Tells the restored interpreter what the new process was given. Returns 0 for success. */
static int give(int argc, char **argv) {
    PyObject *arguments = PyList_New(0), *posix = PyImport_ImportModule("posix");
    PyObject *variables = posix ? PyObject_GetAttrString(posix, "environ") : NULL;
    if (!arguments || !variables) {
        return -1;
    }
    for (int i = 0; i < argc; i++) {
        PyObject *argument = PyUnicode_DecodeFSDefault(argv[i]);
        if (!argument || PyList_Append(arguments, argument)) {
            return -1;
        }
    }
    PyDict_Clear(variables);
    for (char **variable = environ; *variable; variable++) {
        const char *equals = strchr(*variable, '=');
        if (equals) { /* of two with one name the first counts, as for the interpreter */
            PyObject *name = PyBytes_FromStringAndSize(*variable, equals - *variable);
            PyObject *value = PyBytes_FromString(equals + 1);
            if (!name || !value || !PyDict_SetDefault(variables, name, value)) {
                return -1;
            }
        }
    }
    return PySys_SetObject("argv", arguments);
}

/* Serves the call, and ends the process: resume in memory.py does not return. */
static void restore(int argc, char **argv, int code) {
    PyThreadState *state = PyThreadState_Get();
    _PyRuntime.gilstate.autoTSSkey = (Py_tss_t)Py_tss_NEEDS_INIT; /* a key of the recorded process */
    PyOS_AfterFork_Child();
    PyThread_tss_set(&_PyRuntime.gilstate.autoTSSkey, state);
    PyOS_setsig(SIGPIPE, SIG_IGN);
    PyOS_setsig(SIGXFSZ, SIG_IGN);
    if (PyOS_getsig(SIGINT) == SIG_DFL) {
        sigaction(SIGINT, &interrupt, NULL);
    }
    PyObject *memory = PyImport_ImportModule("memory");
    if (!memory || give(argc, argv) || !PyObject_CallMethod(memory, "resume", "is", code, home)) {
        fail("the plugin has failed");
    }
}

int main(int argc, char **argv) {
    char *nameless[] = {"", NULL};
    if (argc == 0) {
        argc = 1;
        argv = nameless;
    }
    if (argc == 2 && !strcmp(argv[1], "--record")) {
        strcpy(home, "podwire.d");
        record(argc, argv);
    }
    ssize_t length = readlink("/proc/self/exe", home, sizeof home - sizeof "/podwire.d");
    while (length > 0 && home[length - 1] != '/') {
        length--;
    }
    if (length <= 0) {
        fail("/proc is not mounted");
    }
    strcpy(home + length, "podwire.d");
    const char *slash = strrchr(argv[0], '/');
    if (strcmp(slash ? slash + 1 : argv[0], "podwired")) {
        occupy_closed_streams();
        int code = map_memory();
        if (code >= 0) {
            restore(argc, argv, code);
        }
    }
    start_interpreter(argc, argv);
    if (!PyImport_ImportModule("entry")) {
        fail("the interpreter has failed");
    }
    return 1; /* not reached: entry.py ends the process */
}
