import CLinux
import Glibc

/// A running process, named so that its number cannot be mistaken for a later
/// process with the same number: by pidfd and start time.
public struct ProcessHandle: Sendable {
  public let identifier: Int32
  /// Clock ticks after boot (field 22 of /proc/PID/stat).
  public let startTime: UInt64
  /// Becomes readable when the process ends.
  public let descriptor: FileDescriptor

  /// A process that this one did not start, or that an earlier instance started.
  ///
  /// - Throws: kind `notFound` when it does not run (any more).
  public init(identifier: Int32, startTime: UInt64) throws(SystemError) {
    let descriptor = FileDescriptor(
      owning: try check(clinux_pidfd_open(identifier), "open process \(identifier)"))
    guard Self.startTime(of: identifier) == startTime else {
      throw SystemError(code: ESRCH, "find process \(identifier) started at \(startTime)")
    }
    self.identifier = identifier
    self.startTime = startTime
    self.descriptor = descriptor
  }

  fileprivate init(child identifier: Int32, descriptor: FileDescriptor) {
    self.identifier = identifier
    self.descriptor = descriptor
    startTime = Self.startTime(of: identifier) ?? 0
  }

  /// Sends a signal; to a process that is gone it throws kind `notFound`.
  public func send(_ signal: Signal) throws(SystemError) {
    try check(
      clinux_pidfd_signal(descriptor.raw, signal.number), "signal process \(identifier)")
  }

  public var isRunning: Bool {
    var watched = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
    return poll(&watched, 1, 0) == 0
  }

  /// This process's own identity.
  public static var current: (identifier: Int32, startTime: UInt64) {
    (getpid(), startTime(of: getpid()) ?? 0)
  }

  /// Field 22 of /proc/PID/stat; `nil` when there is no such process.
  public static func startTime(of identifier: Int32) -> UInt64? {
    guard let bytes = try? Files.read("/proc/\(identifier)/stat", limit: 4096) else { return nil }
    // The second field, the name, may hold anything, so count from its last ")".
    let text = String(decoding: bytes, as: UTF8.self)
    guard let end = text.lastIndex(of: ")") else { return nil }
    let fields = text[text.index(after: end)...].split(separator: " ")
    return fields.count > 19 ? UInt64(fields[19]) : nil
  }
}

/// A program that this process started.
public struct ChildProcess: Sendable {
  public enum Exit: Hashable, Sendable {
    case exited(Int32)
    case signalled(Signal)
  }

  public struct Request: Sendable {
    /// An absolute path.
    public var executable: String
    /// Without the program's own name.
    public var arguments: [String]
    /// `nil`: as this process's.
    public var environment: [String: String]?
    public var directory: String?
    /// Descriptors to give, by the number the child sees. 0–2 are inherited unless
    /// given; all others are closed.
    public var descriptors: [Int32: FileDescriptor] = [:]
    public var newSession = false
    /// Sent to the child when the thread that started it ends.
    public var parentDeathSignal: Signal?

    public init(_ executable: String, _ arguments: [String] = []) {
      self.executable = executable
      self.arguments = arguments
    }
  }

  public let handle: ProcessHandle

  /// Starts the program.
  ///
  /// - Throws: why it could not be executed (kind `notFound`, `permissionDenied`, …).
  public init(_ request: Request) throws(SystemError) {
    let arguments = CStringArray([request.executable] + request.arguments)
    let environment = CStringArray(
      request.environment.map { $0.map { "\($0)=\($1)" } } ?? Self.inheritedEnvironment())
    let directory = request.directory.map { CStringArray([$0]) }
    let given = request.descriptors.sorted { $0.key < $1.key }
    let sources = given.map(\.value.raw)
    let targets = given.map(\.key)
    var descriptor: Int32 = -1
    let result = sources.withUnsafeBufferPointer { sources in
      targets.withUnsafeBufferPointer { targets in
        // SAFETY: all arrays outlive the call, which copies nothing beyond it.
        var spawn = clinux_spawn()
        spawn.path = UnsafePointer(arguments.pointers[0])
        spawn.arguments = UnsafePointer(arguments.pointers.baseAddress)
        spawn.environment = UnsafePointer(environment.pointers.baseAddress)
        spawn.directory = directory.flatMap { UnsafePointer($0.pointers[0]) }
        spawn.sources = sources.baseAddress
        spawn.targets = targets.baseAddress
        spawn.descriptor_count = sources.count
        spawn.new_session = request.newSession ? 1 : 0
        spawn.parent_death_signal = request.parentDeathSignal?.number ?? 0
        return clinux_spawn(&spawn, &descriptor)
      }
    }
    withExtendedLifetime((arguments, environment, directory, given)) {}
    try check(result, "start \(request.executable)")
    handle = ProcessHandle(child: result, descriptor: FileDescriptor(owning: descriptor))
  }

  /// Waits for the end and reaps.
  public func wait() throws(SystemError) -> Exit {
    while true {
      if let exit = try reap(blocking: true) { return exit }
    }
  }

  /// Reaps if it has ended; `nil` while it runs.
  public func reap() throws(SystemError) -> Exit? {
    try reap(blocking: false)
  }

  private func reap(blocking: Bool) throws(SystemError) -> Exit? {
    var code: Int32 = 0
    var status: Int32 = 0
    let result = clinux_pidfd_wait(handle.descriptor.raw, blocking ? 1 : 0, &code, &status)
    if result == -EINTR { return nil }
    guard try check(result, "wait for process \(handle.identifier)") == 1 else { return nil }
    return code == 1 ? .exited(status) : .signalled(Signal(status))
  }

  private static func inheritedEnvironment() -> [String] {
    guard let bytes = try? Files.read("/proc/self/environ") else { return [] }
    return bytes.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
  }
}

/// A NULL-terminated array of C strings, freed with the object.
private final class CStringArray {
  let pointers: UnsafeMutableBufferPointer<UnsafeMutablePointer<CChar>?>

  init(_ strings: [String]) {
    // SAFETY: one slot per string and one for the terminating NULL, all initialised here.
    pointers = .allocate(capacity: strings.count + 1)
    for (index, string) in strings.enumerated() {
      pointers.initializeElement(at: index, to: strdup(string))
    }
    pointers.initializeElement(at: strings.count, to: nil)
  }

  deinit {
    for pointer in pointers { free(pointer) }
    pointers.deallocate()
  }
}
