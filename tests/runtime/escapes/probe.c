/* What a container cannot do with a shell alone. It stands on nothing but the kernel, so that it also runs as the loader of
 * another program, and as a library in it (-DLIBRARY).
 *
 *   overwrite          opens the file that it was executed from, and has a shell try to write to it
 *   overwrite-later    the same by a process that stays behind, which makes /data/done at its end
 *   who                prints the effective user and capabilities
 *   chroot PATH        leaves a root that is no more than a chroot(2), and prints PATH
 *   keyring CMD...     runs CMD in a session keyring that holds the key "sysctr-test"
 *   key                looks for that key
 */
#include <sys/syscall.h>

static long call(long number, long a, long b, long c, long d, long e)
{
    long result;
#if defined(__x86_64__)
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    result = x0;
#else
#error "no system calls for this processor"
#endif
    return result;
}

enum { HERE = -100, PATH_ONLY = 010000000, SESSION = -3, JOIN = 1, SEARCH = 10 };

static void end(int code)
{
    call(SYS_exit_group, code, 0, 0, 0, 0);
}

static void say(const char *text)
{
    long length = 0;
    while (text[length])
        length++;
    call(SYS_write, 1, (long)text, length, 0, 0);
}

static void say_number(unsigned long number)
{
    char digits[24], *at = digits + sizeof digits - 1;
    *at = 0;
    do
        *--at = '0' + number % 10;
    while (number /= 10);
    say(at);
}

/* Writing is refused as busy for as long as anyone runs the file, so the shell tries until the launcher has gone. */
#define TRY "i=0; while [ $i -lt 100 ]; do i=$((i+1)); " \
            "if { echo owned >> /proc/self/fd/9; } 2>/tmp/why; then echo overwritten; break; fi; " \
            "grep -q Read-only /tmp/why && break; sleep 0.1; done; cat /tmp/why; "

static void overwrite(int later)
{
    static char *now[] = { "sh", "-c", TRY, 0 };
    static char *behind[] = { "sh", "-c", "{ " TRY "echo > /data/done; } >/dev/null 2>&1 </dev/null &", 0 };
    char **args = later ? behind : now;
    static char *env[] = { "PATH=/bin", 0 };
    long file = call(SYS_openat, HERE, (long)"/proc/self/exe", PATH_ONLY, 0, 0);
    call(SYS_dup3, file, 9, 0, 0, 0);
    call(SYS_execve, (long)"/bin/sh", (long)args, (long)env, 0, 0);
    end(1);
}

#ifdef LIBRARY

void begin(void)
{
    overwrite(0);
}

#else

static int is(const char *one, const char *other)
{
    while (*one && *one == *other)
        one++, other++;
    return *one == *other;
}

static void who(void)
{
    struct { unsigned version; int pid; } header = { 0x20080522, 0 };
    struct { unsigned effective, permitted, inheritable; } data[2];
    call(SYS_capget, (long)&header, (long)data, 0, 0, 0);
    say("user ");
    say_number(call(SYS_geteuid, 0, 0, 0, 0, 0));
    say(" capabilities ");
    say_number(data[0].effective);
    say("\n");
}

static void leave_chroot(const char *path)
{
    char text[256];
    call(SYS_mkdirat, HERE, (long)"/tmp/inner", 0755, 0, 0);
    call(SYS_chroot, (long)"/tmp/inner", 0, 0, 0, 0);
    for (int i = 0; i < 64; i++)
        call(SYS_chdir, (long)"..", 0, 0, 0, 0);
    call(SYS_chroot, (long)".", 0, 0, 0, 0);
    long file = call(SYS_openat, HERE, (long)path, 0, 0, 0);
    long length = call(SYS_read, file, (long)text, sizeof text, 0, 0);
    if (length > 0)
        call(SYS_write, 1, (long)text, length, 0, 0);
}

__attribute__((used)) static void enter(long *stack)
{
    long count = stack[0];
    char **args = (char **)(stack + 1), **env = args + count + 1;
    const char *verb = count > 1 ? args[1] : "";
    if (is(verb, "overwrite"))
        overwrite(0);
    if (is(verb, "overwrite-later"))
        overwrite(1);
    if (is(verb, "who"))
        who();
    if (is(verb, "chroot") && count > 2)
        leave_chroot(args[2]);
    if (is(verb, "keyring") && count > 2) {
        call(SYS_keyctl, JOIN, 0, 0, 0, 0);
        call(SYS_add_key, (long)"user", (long)"sysctr-test", (long)"secret", 6, SESSION);
        call(SYS_execve, (long)args[2], (long)(args + 2), (long)env, 0, 0);
        end(1);
    }
    if (is(verb, "key"))
        say(call(SYS_keyctl, SEARCH, SESSION, (long)"user", (long)"sysctr-test", 0) >= 0 ? "found\n" : "none\n");
    end(0);
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start: mov %rsp, %rdi\nand $-16, %rsp\ncall enter\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start: mov x0, sp\nbl enter\n");
#endif

#endif
