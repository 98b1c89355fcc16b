import CLinux
import Glibc

/// Copies of a process that go on in the same program, memory and all.
public enum ProcessFork {
  public enum Side: Sendable {
    /// The process that called, and the number of the copy.
    case original(copy: Int32)
    case copy
  }

  /// A child that has ended.
  public struct Ended: Sendable {
    public let identifier: Int32
    public let exit: ChildProcess.Exit
  }

  /// How many threads this process has.
  public static func threadCount() throws(SystemError) -> Int {
    Int(try check(clinux_thread_count(), "count this process's threads"))
  }

  /// Waits for the kernel to be done with threads that were joined.
  ///
  /// - Throws: kind `busy` when some are there after half a minute.
  public static func awaitSingleThread() throws(SystemError) {
    // There is no event for it.
    let pause = try Poller()
    for _ in 0..<30_000 {
      guard try threadCount() > 1 else { return }
      _ = try pause.wait(milliseconds: 1)
    }
    throw SystemError(code: EBUSY, "wait for this process's other threads")
  }

  /// Copies this process. What the copy does not need of the descriptors it closes itself.
  ///
  /// - Throws: kind `busy` when the process has other threads: whatever these hold or have
  ///   half done would stay so in the copy for ever. Kind `wouldBlock` and others where the
  ///   host has no room for another process.
  public static func fork() throws(SystemError) -> Side {
    guard try threadCount() == 1 else {
      throw SystemError(code: EBUSY, "copy a process that has several threads")
    }
    // SAFETY: this is the only thread, so no lock is held by another one, nothing is half
    // done, and the allocator, Swift's runtime and every object are in the copy as they are
    // here. Nobody else can make a thread between the look and the call.
    let result = try check(clinux_fork(), "copy this process")
    return result == 0 ? .copy : .original(copy: result)
  }

  /// The user whose rights this process has.
  public static var user: UInt32 { geteuid() }

  /// Leaves the session, and so the terminal, of the process that this one was copied from.
  public static func enterNewSession() throws(SystemError) {
    try check(clinux_new_session(), "begin a session")
  }

  /// Has one of the standard descriptors (0, 1, 2) be `descriptor`.
  public static func setStandard(_ number: Int32, _ descriptor: FileDescriptor)
    throws(SystemError)
  {
    try check(
      clinux_put_descriptor(descriptor.raw, number), "replace standard descriptor \(number)")
  }

  /// Reaps a copy that has ended; `nil` when there is none.
  public static func reap() throws(SystemError) -> Ended? {
    var status: Int32 = 0
    let identifier = try check(clinux_reap(&status), "look for children that ended")
    guard identifier > 0 else { return nil }
    let signal = status & 0x7F
    return Ended(
      identifier: identifier,
      exit: signal == 0 ? .exited(status >> 8 & 0xFF) : .signalled(Signal(signal)))
  }
}
