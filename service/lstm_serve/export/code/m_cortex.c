/* The start of a Cortex-M4F program with semihosting: its vectors, its FPU switched on, and main. */
#include <stdlib.h>

extern unsigned stack_top, __bss_start__, __bss_end__;
extern void initialise_monitor_handles(void);
extern int main(int argc, char **argv);

void _init(void) {}
void _fini(void) {}

void reset(void);

void reset(void)
{
    static char *arguments[] = {"m", 0};
    *(volatile unsigned *)0xE000ED88u |= 0xFu << 20;
    __asm volatile("dsb; isb");
    for (unsigned *word = &__bss_start__; word < &__bss_end__; ++word) *word = 0;
    initialise_monitor_handles();
    exit(main(1, arguments));
}

static void stop(void)
{
    exit(99);
}

__attribute__((section(".vectors"), used)) static void *const vectors[] = {
    &stack_top, (void *)reset, (void *)stop, (void *)stop, (void *)stop, (void *)stop, (void *)stop};
