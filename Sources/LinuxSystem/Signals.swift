import CLinux
import Glibc

/// A POSIX signal.
public struct Signal: Hashable, Sendable {
  public let number: Int32
  public init(_ number: Int32) { self.number = number }

  public static let hangUp = Signal(SIGHUP)
  public static let interrupt = Signal(SIGINT)
  public static let quit = Signal(SIGQUIT)
  public static let kill = Signal(SIGKILL)
  public static let terminate = Signal(SIGTERM)
  public static let pipe = Signal(SIGPIPE)
  public static let user1 = Signal(SIGUSR1)
  public static let user2 = Signal(SIGUSR2)
  public static let child = Signal(SIGCHLD)
  public static let stop = Signal(SIGSTOP)
  public static let resume = Signal(SIGCONT)

  /// Ignores it in the whole process (children made by `ChildProcess` have the default).
  public func ignore() {
    _ = clinux_ignore_signal(number)
  }

  /// Lets it through to the calling thread, which may have inherited a mask (those
  /// made by a task pool do).
  public func unblock() {
    _ = clinux_unblock_signal(number)
  }

  /// Gives it a handler that does nothing: it only interrupts a blocking call of
  /// the thread it is sent to.
  public func makeInterrupting() throws(SystemError) {
    try check(clinux_interrupting_signal(number), "install a signal handler")
  }
}

/// Signals as a readable descriptor (signalfd).
public struct SignalDescriptor: Sendable {
  public let descriptor: FileDescriptor

  /// Blocks `signals` in the calling thread, and so in the threads it makes
  /// later: call it first, from the main thread.
  public init(_ signals: [Signal]) throws(SystemError) {
    let numbers = signals.map(\.number)
    try check(clinux_block_signals(numbers, numbers.count), "block signals")
    descriptor = FileDescriptor(
      owning: try check(clinux_signalfd(numbers, numbers.count), "make a signalfd"))
  }

  /// The next signal that arrived, `nil` when there is none.
  public func next() -> Signal? {
    let number = clinux_signalfd_next(descriptor.raw)
    return number > 0 ? Signal(number) : nil
  }
}
