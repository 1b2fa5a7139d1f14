# The system calls of the hot path, for the compiled build: made while no Python runs in this thread.
#
# Each returns what the Python build's twin returns or raises: octets done, or an errno below zero.

from libc.errno cimport EAGAIN, EINTR, EIO, EOPNOTSUPP, errno
from libc.stdint cimport uint8_t, uint32_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.types cimport off_t


cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len
    ssize_t preadv2(int, const iovec*, int, off_t, int)
    int RWF_NOWAIT

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int, void*, size_t, int)
    ssize_t send(int, const void*, size_t, int)
    int MSG_DONTWAIT, MSG_MORE, MSG_NOSIGNAL

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int, void*, size_t, off_t)

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    static uint32_t panloom_crc32c_table[256];

    static uint32_t panloom_crc32c_plain(uint32_t sum, const uint8_t* at, size_t octets)
    {
        if (!panloom_crc32c_table[1]) {
            for (uint32_t octet = 0; octet < 256; octet++) {
                uint32_t rest = octet;
                for (int bit = 0; bit < 8; bit++)
                    rest = rest & 1 ? rest >> 1 ^ 0x82F63B78u : rest >> 1;
                panloom_crc32c_table[octet] = rest;
            }
        }
        while (octets--)
            sum = sum >> 8 ^ panloom_crc32c_table[(sum ^ *at++) & 255];
        return sum;
    }

    #if defined(__x86_64__) && defined(__GNUC__)
    __attribute__((target("sse4.2")))
    static uint32_t panloom_crc32c_sse(uint32_t sum, const uint8_t* at, size_t octets)
    {
        uint64_t wide = sum, word;
        for (; octets >= 8; at += 8, octets -= 8) {
            memcpy(&word, at, 8);
            wide = __builtin_ia32_crc32di(wide, word);
        }
        sum = (uint32_t)wide;
        while (octets--)
            sum = __builtin_ia32_crc32qi(sum, *at++);
        return sum;
    }
    #define panloom_crc32c(sum, at, octets) (__builtin_cpu_supports("sse4.2") \
        ? panloom_crc32c_sse(sum, at, octets) : panloom_crc32c_plain(sum, at, octets))
    #else
    #define panloom_crc32c panloom_crc32c_plain
    #endif
    """
    uint32_t panloom_crc32c(uint32_t, const uint8_t*, size_t) nogil
    int __builtin_clzll(unsigned long long) nogil


cdef inline long long monotonic_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <long long>now.tv_sec * 1000000000 + now.tv_nsec


cdef inline int bit_length(long long number) noexcept nogil:
    return 64 - __builtin_clzll(number) if number else 0


cdef inline uint32_t get32(const uint8_t* at) noexcept nogil:
    return <uint32_t>at[0] << 24 | <uint32_t>at[1] << 16 | <uint32_t>at[2] << 8 | at[3]


cdef inline void put32(uint8_t* at, uint32_t value) noexcept nogil:
    at[0] = <uint8_t>(value >> 24)
    at[1] = <uint8_t>(value >> 16)
    at[2] = <uint8_t>(value >> 8)
    at[3] = <uint8_t>value


cdef inline void put_digest(uint8_t* to, const uint8_t* at, size_t octets) noexcept nogil:
    cdef uint32_t total = ~panloom_crc32c(0xFFFFFFFF, at, octets)
    to[0] = <uint8_t>total
    to[1] = <uint8_t>(total >> 8)
    to[2] = <uint8_t>(total >> 16)
    to[3] = <uint8_t>(total >> 24)


cdef inline bint digest_is(const uint8_t* stands, const uint8_t* at, size_t octets) noexcept nogil:
    cdef uint8_t right[4]
    put_digest(right, at, octets)
    return right[0] == stands[0] and right[1] == stands[1] and right[2] == stands[2] and right[3] == stands[3]


cdef inline ssize_t receive(int fd, uint8_t* into, size_t octets) noexcept nogil:
    cdef ssize_t got = recv(fd, into, octets, 0)
    while got < 0 and errno == EINTR:
        got = recv(fd, into, octets, 0)
    return got if got >= 0 else -errno


cdef inline ssize_t receive_within(int fd, uint8_t* into, size_t octets, long long nanoseconds) noexcept nogil:
    # As receive, but looks for so long only, and without giving the processor away; -EAGAIN: nothing came.
    cdef long long end = monotonic_ns() + nanoseconds
    cdef ssize_t got = recv(fd, into, octets, MSG_DONTWAIT)
    while got < 0 and (errno == EAGAIN or errno == EINTR) and monotonic_ns() < end:
        got = recv(fd, into, octets, MSG_DONTWAIT)
    return got if got >= 0 else -errno


cdef inline int send_all(int fd, const uint8_t* octets, size_t count, int flags) noexcept nogil:
    cdef ssize_t done
    while count:
        done = send(fd, octets, count, flags | MSG_NOSIGNAL)
        if done < 0:
            if errno == EINTR or errno == EAGAIN:
                continue
            return -errno
        octets += done
        count -= done
    return 0


cdef inline int read_cached(int fd, uint8_t* into, size_t octets, off_t at) noexcept nogil:
    # 0: all of it; -EAGAIN: it would have to be waited for.
    cdef iovec part
    cdef ssize_t got
    while octets:
        part.iov_base = into
        part.iov_len = octets
        got = preadv2(fd, &part, 1, at, RWF_NOWAIT)
        if got < 0 and errno == EOPNOTSUPP:  # a file system that cannot tell, as a tmpfs that never waits
            got = pread(fd, into, octets, at)
        if got < 0:
            if errno == EINTR:
                continue
            return -errno
        if got == 0:
            return -EIO
        into += got
        octets -= got
        at += got
    return 0
