import CLinux
import Glibc

/// A counter to wake another thread or process with (eventfd, non-blocking).
public struct EventDescriptor: Sendable {
  public let descriptor: FileDescriptor

  public init() throws(SystemError) {
    descriptor = FileDescriptor(owning: try check(clinux_eventfd(0), "make an eventfd"))
  }

  /// One that another process made and sent.
  public init(received descriptor: FileDescriptor) {
    self.descriptor = descriptor
  }

  public func signal() {
    _ = clinux_eventfd_add(descriptor.raw, 1)
  }

  /// Resets the counter; returns whether it had been signalled.
  @discardableResult
  public func drain() -> Bool {
    clinux_eventfd_drain(descriptor.raw) == 1
  }
}

/// A deadline on the monotonic clock that becomes readable (timerfd).
public struct TimerDescriptor: Sendable {
  public let descriptor: FileDescriptor

  public init() throws(SystemError) {
    descriptor = FileDescriptor(owning: try check(clinux_timerfd(), "make a timerfd"))
  }

  /// Arms for `deadline` in `MonotonicClock.now` nanoseconds; `nil` disarms.
  public func arm(at deadline: UInt64?) throws(SystemError) {
    try check(
      clinux_timerfd_arm(descriptor.raw, deadline.map { max($0, 1) } ?? 0), "arm a timerfd")
  }

  @discardableResult
  public func drain() -> Bool {
    var count: UInt64 = 0
    // SAFETY: a timerfd yields exactly eight bytes, the size of `count`.
    return Glibc.read(descriptor.raw, &count, 8) == 8
  }
}

/// Waits for many descriptors (epoll, level-triggered). One thread waits; any may
/// add and remove.
public struct Poller: Sendable {
  public struct Interest: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    public static let readable = Interest(rawValue: 0x001)
    public static let writable = Interest(rawValue: 0x004)
    /// Reported whether asked for or not.
    public static let failed = Interest(rawValue: 0x008)
    /// Both directions are closed. Reported whether asked for or not.
    public static let hungUp = Interest(rawValue: 0x010)
    public static let peerClosed = Interest(rawValue: 0x2000)
  }

  public struct Event: Sendable {
    public let token: UInt64
    public let interest: Interest
  }

  /// Becomes readable when something watched is ready, so pollers nest.
  public let descriptor: FileDescriptor

  public init() throws(SystemError) {
    descriptor = FileDescriptor(owning: try check(clinux_epoll_create(), "make an epoll"))
  }

  public func add(_ watched: FileDescriptor, _ interest: Interest = .readable, token: UInt64)
    throws(SystemError)
  {
    try check(
      clinux_epoll_control(descriptor.raw, 1, watched.raw, interest.rawValue, token),
      "watch a descriptor")
  }

  public func modify(_ watched: FileDescriptor, _ interest: Interest, token: UInt64)
    throws(SystemError)
  {
    try check(
      clinux_epoll_control(descriptor.raw, 3, watched.raw, interest.rawValue, token),
      "change the watch on a descriptor")
  }

  /// Removes; one that is not watched is no error.
  public func remove(_ watched: FileDescriptor) {
    _ = clinux_epoll_control(descriptor.raw, 2, watched.raw, 0, 0)
  }

  /// Waits until something is ready; empty when the time is over or a signal came.
  public func wait(milliseconds: Int32 = -1) throws(SystemError) -> [Event] {
    var events = [UInt32](repeating: 0, count: 64)
    var tokens = [UInt64](repeating: 0, count: 64)
    let count = clinux_epoll_wait(descriptor.raw, &events, &tokens, 64, milliseconds)
    if count == -EINTR { return [] }
    try check(count, "wait for descriptors")
    return (0..<Int(count)).map {
      Event(token: tokens[$0], interest: Interest(rawValue: events[$0]))
    }
  }
}

/// The clock of deadlines: nanoseconds since some past instant, never set.
public enum MonotonicClock {
  public static var now: UInt64 { clinux_monotonic() }
}

/// UTC, as it may be set and slewed.
public enum WallClock {
  public static var now: (seconds: Int64, nanoseconds: UInt32) {
    var nanoseconds: UInt32 = 0
    let seconds = clinux_wall_clock(&nanoseconds)
    return (seconds, nanoseconds)
  }
}
