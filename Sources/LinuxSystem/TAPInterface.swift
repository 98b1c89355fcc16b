import CLinux
import Glibc

/// A TAP interface of this host: its frames, one to a read or write, none of which blocks,
/// each behind a struct virtio_net_hdr of `headerSize` bytes (linux/virtio_net.h).
///
/// Queues are read and written by any threads; all else is for one at a time.
// SAFETY: `attached` and `offloads` alone change, and are not used by reads and writes.
public final class TAPInterface: @unchecked Sendable {
  /// What may be left undone in frames that come (TUN_F_* of linux/if_tun.h).
  public struct Offloads: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    public static let checksum = Offloads(rawValue: 1 << 0)
    public static let tcp4 = Offloads(rawValue: 1 << 1)
    public static let tcp6 = Offloads(rawValue: 1 << 2)
    /// Of segments with TCP's CWR flag; only with one of the two above.
    public static let congestion = Offloads(rawValue: 1 << 3)
  }

  public static let headerSize = Int(CLINUX_TAP_HEADER)

  public let name: String
  public let queues: [FileDescriptor]
  /// Frames come to the first so many.
  private var attached: Int
  private var offloads: Offloads = []

  /// Attaches to the interface, which is made if there is none and this user may. One that
  /// was made with a single queue gives no more; frames come complete, to all queues.
  ///
  /// - Throws: kind `permissionDenied` where the interface is not this user's; `busy` when
  ///   something else is attached to it.
  public init(_ name: String, queues count: Int = 1) throws(SystemError) {
    self.name = name
    var queues = [try Self.open(name, several: count > 1)]
    let isSeveral = queues[0].isSeveral
    while isSeveral, queues.count < count {
      queues.append(try Self.open(name, several: true, elseTry: false))
    }
    self.queues = queues.map(\.descriptor)
    attached = queues.count
    // Where a kernel does not tell, an interface with several queues is taken on trust.
    if isSeveral, let all = try? Self.queueCount(of: name), all > count {
      throw SystemError(code: EBUSY, Self.operation(name))
    }
  }

  /// How many queues of an interface frames come to, whoever reads them.
  public static func queueCount(of name: String) throws(SystemError) -> Int {
    Int(try check(clinux_tap_queues(name), "count the queues of the interface \(name)"))
  }

  private static func operation(_ name: String) -> String { "attach to the TAP interface \(name)" }

  /// The kernel wants to be told how an interface was made that is there already: both ways
  /// are tried.
  private static func open(
    _ name: String, several: Bool, elseTry: Bool = true
  ) throws(SystemError) -> (descriptor: FileDescriptor, isSeveral: Bool) {
    var (result, isSeveral) = (clinux_tap_open(name, several ? 1 : 0), several)
    if result == -EINVAL, elseTry {
      (result, isSeveral) = (clinux_tap_open(name, several ? 0 : 1), !several)
    }
    return (FileDescriptor(owning: try check(result, operation(name))), isSeveral)
  }

  /// For frames that come from now on; those that wait already stay as they are.
  public func setOffloads(_ offloads: Offloads) throws(SystemError) {
    guard offloads != self.offloads else { return }
    try check(
      clinux_tap_set_offloads(queues[0].raw, offloads.rawValue),
      "set what the TAP interface \(name) leaves undone")
    self.offloads = offloads
  }

  /// Has frames come to the first `count` queues, at least one. What waits in others is lost.
  public func attach(_ count: Int) throws(SystemError) {
    let count = min(max(count, 1), queues.count)
    while attached != count {
      let isAdded = attached < count
      let queue = queues[isAdded ? attached : attached - 1]
      try check(
        clinux_tap_attach(queue.raw, isAdded ? 1 : 0), "change the queues of the interface \(name)")
      attached += isAdded ? 1 : -1
    }
  }

  /// The next frame of a queue, at most as long as `buffer`, which it goes through; what is
  /// longer is cut. `nil` when there is none.
  public func read(
    _ queue: Int, into buffer: inout [UInt8]
  ) throws(SystemError) -> (header: [UInt8], frame: [UInt8])? {
    var header = [UInt8](repeating: 0, count: Self.headerSize)
    let count = clinux_tap_read(queues[queue].raw, &header, &buffer, buffer.count)
    if count == -EAGAIN { return nil }
    try check(count, "read from the TAP interface \(name)")
    let length = min(max(count - Self.headerSize, 0), buffer.count)
    return (header, Array(buffer[..<length]))
  }

  /// Sends a frame; one that finds no room is lost.
  ///
  /// - Parameter header: `headerSize` bytes.
  public func write(_ queue: Int, _ header: [UInt8], _ frame: [UInt8]) {
    _ = clinux_tap_write(queues[queue].raw, header, frame, frame.count)
  }
}

public enum NetworkNamespace {
  /// Moves this thread, and what it starts from now on, into a new network with nothing but
  /// a loopback. It goes with the last that is in it.
  public static func enterNew() throws(SystemError) {
    try check(clinux_new_network(), "make a network namespace")
  }
}
