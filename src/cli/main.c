#include <stdio.h>

int main(void)
{
    puts(MEMFS_VERSION);
    return 0;
}
