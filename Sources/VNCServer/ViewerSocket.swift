import Glibc
import LinuxSystem

/// A viewer's socket: read by one thread, written by another, and watched while
/// it is written or the viewer owes something, so that one that stops reading is shed.
final class ViewerSocket: Sendable {
  /// How long a viewer may take nothing while something waits for it.
  static let patience: UInt64 = 2_000_000_000
  private static let interval: UInt64 = 400_000_000
  /// Ends a blocking call of the writing thread. Ignored where nobody handles it.
  static let interruption = Signal(SIGURG)
  /// SIOCOUTQNSD of linux/sockios.h.
  private static let unsentQuery: UInt = 0x894B

  let descriptor: FileDescriptor
  /// Readable when `checkProgress` is due. For the reading thread.
  var timer: FileDescriptor { watch.descriptor }

  private let watch: TimerDescriptor
  /// Signalled when a writer that was given up is out of its wait.
  private let released: EventDescriptor
  private let writing = Guarded(Writing())

  private struct Writing {
    /// The writer's processor clock, while it writes, and since when.
    var clock: clockid_t?
    var start: UInt64 = 0
    /// How much longer than `patience` what the viewer owes may take.
    var owed: UInt64?
    /// The last progress.
    var since: UInt64 = 0
    var mark = Mark()
    var isStalled = false
    /// Nobody reads the viewer any more, nor checks on the writer.
    var isAbandoned = false
  }

  /// What tells of progress.
  private struct Mark {
    var processorTime: UInt64 = 0
    /// Bytes that the kernel keeps for the viewer.
    var queued = 0
  }

  init(_ descriptor: FileDescriptor) throws(SystemError) {
    self.descriptor = descriptor
    watch = try TimerDescriptor()
    released = try EventDescriptor()
    try descriptor.setNonBlocking(true)
    // Unsent bytes wait here, where they can still be replaced by newer pictures,
    // not in the kernel. Has no meaning, and no effect, on Unix sockets.
    var low: Int32 = 128 * 1024
    var on: Int32 = 1
    setsockopt(descriptor.raw, Int32(IPPROTO_TCP), TCP_NOTSENT_LOWAT, &low, 4)
    setsockopt(descriptor.raw, Int32(IPPROTO_TCP), TCP_NODELAY, &on, 4)
  }

  /// Ends both directions; whoever waits for this socket is woken.
  func shutDown() {
    shutdown(descriptor.raw, Int32(SHUT_RDWR))
  }

  /// Whether an update may start without waiting.
  var isWritable: Bool {
    var watched = pollfd(fd: descriptor.raw, events: Int16(POLLOUT), revents: 0)
    return poll(&watched, 1, 0) == 1 && watched.revents & Int16(POLLOUT) != 0
  }

  /// Bytes that the kernel has not sent yet, as far as it tells.
  var unsent: Int {
    var bytes: Int32 = 0
    // Of a TCP socket what is on its way is not among them.
    if ioctl(descriptor.raw, Self.unsentQuery, &bytes) != 0 {
      _ = ioctl(descriptor.raw, UInt(TIOCOUTQ), &bytes)
    }
    return Int(bytes)
  }

  /// Why the viewer was shed, if it was.
  var isStalled: Bool { writing.withLock { $0.isStalled } }

  // MARK: Writing

  /// Runs `body`, in which libvncserver may block writing to the viewer, watched.
  func watched<Result>(_ body: () -> Result) -> Result {
    var clock = clockid_t()
    pthread_getcpuclockid(pthread_self(), &clock)
    let mark = mark(of: clock)
    let now = MonotonicClock.now
    let isOwed = writing.withLock { writing in
      writing.clock = clock
      writing.start = now
      writing.mark = mark
      // What a viewer owes is not paid by more being written to it.
      if writing.owed == nil { writing.since = now }
      return writing.owed != nil
    }
    // Else it is armed, and must not be put off by each small update.
    if !isOwed { try? watch.arm(at: now + Self.interval) }
    defer {
      let (isOwed, isGivenUp) = writing.withLock { writing in
        writing.clock = nil
        return (writing.owed != nil, writing.isStalled || writing.isAbandoned)
      }
      if isGivenUp { released.signal() }
      if !isOwed { try? watch.arm(at: nil) }
    }
    return body()
  }

  // MARK: Between writes

  /// The viewer must do something before anything more is written: answer a fence, or
  /// take what is in the socket. Until then it is watched as during a write.
  ///
  /// - Parameter time: how much longer than `patience` that may take, in nanoseconds;
  ///   `nil` when it owes nothing.
  func expect(within time: UInt64?) {
    let now = MonotonicClock.now
    let mark = mark(of: nil)
    let isNew = writing.withLock { writing in
      let isNew = writing.owed == nil && time != nil
      writing.owed = time
      if isNew { (writing.since, writing.mark.queued) = (now, mark.queued) }
      return isNew
    }
    if isNew { try? watch.arm(at: now + Self.interval) }
  }

  /// The viewer did some of what is expected.
  func progressed() {
    let now = MonotonicClock.now
    writing.withLock { $0.since = now }
  }

  /// Writes all of a short message, waiting where the socket is full.
  func write(_ bytes: [UInt8]) -> Bool {
    guard !bytes.isEmpty else { return true }
    return watched {
      var done = 0
      while done < bytes.count {
        // SAFETY: `done` stays below the array's count, which bounds the write.
        let count = bytes.withUnsafeBytes { buffer in
          send(
            descriptor.raw, buffer.baseAddress?.advanced(by: done), buffer.count - done,
            Int32(MSG_NOSIGNAL))
        }
        if count >= 0 {
          done += count
        } else if errno == EAGAIN {
          var watched = pollfd(fd: descriptor.raw, events: Int16(POLLOUT), revents: 0)
          _ = poll(&watched, 1, -1)
          if watched.revents & Int16(POLLERR | POLLHUP) != 0 { return false }
        } else if errno != EINTR {
          return false
        }
      }
      return true
    }
  }

  /// Reading thread: sheds the viewer when nothing got on for long.
  ///
  /// A writer that gets anything through wakes up to write more, and so uses
  /// processor time; that, or a queue that shrinks, is progress.
  func checkProgress(of writer: Thread) {
    watch.drain()
    let (isWatched, isWriting, isStalled) = writing.withLock { writing in
      guard writing.clock != nil || writing.owed != nil else { return (false, false, false) }
      let now = MonotonicClock.now
      let mark = mark(of: writing.clock)
      // A short write uses some, too, and says nothing about the viewer.
      let isBlocked = writing.clock != nil && now - writing.start >= Self.interval / 2
      if mark.queued < writing.mark.queued
        || isBlocked && mark.processorTime != writing.mark.processorTime
      {
        writing.since = now
      }
      writing.mark = mark
      let patience = Self.patience - Self.interval + (writing.owed ?? 0)
      if now - writing.since >= patience { writing.isStalled = true }
      return (true, writing.clock != nil, writing.isStalled)
    }
    guard isWatched else { return }
    guard isStalled else {
      try? watch.arm(at: MonotonicClock.now + Self.interval)
      return
    }
    shutDown()
    if isWriting { release(writer) }
  }

  /// Reading thread, as its last deed: ends the connection, and a write to it.
  func abandon(_ writer: Thread) {
    writing.withLock { $0.isAbandoned = true }
    shutDown()
    release(writer)
  }

  /// Gets a writer out of a wait that does not notice the end of the connection,
  /// as select() on a Unix socket does not. One that was just about to wait misses
  /// the signal, so it is repeated.
  private func release(_ writer: Thread) {
    while writing.withLock({ $0.clock != nil }) {
      writer.interrupt(Self.interruption)
      var watched = pollfd(fd: released.descriptor.raw, events: Int16(POLLIN), revents: 0)
      _ = poll(&watched, 1, 10)
    }
  }

  /// Lets the calling thread be interrupted, whatever its creator had blocked.
  static func allowInterruption() {
    var signals = sigset_t()
    sigemptyset(&signals)
    sigaddset(&signals, interruption.number)
    pthread_sigmask(SIG_UNBLOCK, &signals, nil)
  }

  private func mark(of clock: clockid_t?) -> Mark {
    var time = timespec()
    if let clock { clock_gettime(clock, &time) }
    var queued: Int32 = 0
    _ = ioctl(descriptor.raw, UInt(TIOCOUTQ), &queued)
    return Mark(
      processorTime: UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec),
      queued: Int(queued))
  }
}
