import Brokering
import Glibc
import LinuxSystem
import QMP

/// The process that holds a template and makes its clones. It serves one `carreld`, and
/// clones do not need it once they run.
struct TemplateServer: Sendable {
  let directory: TemplateDirectory
  let record: TemplateRecord
  let process: ProcessHandle

  /// For it to read and check the memory of the template.
  static let startLimit: UInt64 = 60_000_000_000
  private static let answerLimit: Int32 = 30_000

  /// Starts it. Blocks until it takes requests.
  static func start(
    _ directory: TemplateDirectory, _ record: TemplateRecord, program: String,
    placeholder: DesktopDirectory
  ) throws -> (server: TemplateServer, child: ChildProcess) {
    for path in [directory.socket, directory.process] { try Files.remove(path) }
    let log = try LogFile.open(directory.log)
    let command = VMMCommand(
      template: record, in: directory, placeholder: placeholder)
    var request = ChildProcess.Request(program, command.arguments)
    request.environment = ["PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"]
    request.directory = "/"
    request.descriptors = [0: try FileDescriptor.open("/dev/null"), 1: log, 2: log]
    request.newSession = true
    let child = try ChildProcess(request)
    try? OutOfMemoryScore.set(OutOfMemoryScore.template, of: child.handle)
    do {
      try Records.store(
        VMMIdentity(pid: child.handle.identifier, startTime: child.handle.startTime),
        at: directory.process)
      try awaitSocket(directory, child.handle)
    } catch {
      try? child.handle.send(.kill)
      _ = try? child.wait()
      throw error
    }
    return (TemplateServer(directory: directory, record: record, process: child.handle), child)
  }

  /// Blocks until the template's process takes requests.
  static func awaitSocket(_ directory: TemplateDirectory, _ process: ProcessHandle) throws {
    let deadline = MonotonicClock.now + startLimit
    let pause = try Pause()
    while (try? UnixSocket.connect(to: directory.socket, kind: .packets)) == nil {
      guard process.isRunning, MonotonicClock.now < deadline else {
        throw BrokerError(
          .host, "the process of template \(directory.name) did not start: see \(directory.log)")
      }
      // It has no way to tell.
      try pause.wait(milliseconds: 5)
    }
  }

  /// Ends one that an earlier `carreld` left.
  static func end(_ directory: TemplateDirectory) {
    guard let identity = Records.load(VMMIdentity.self, from: directory.process),
      let process = try? ProcessHandle(
        identifier: identity.pid, startTime: identity.startTime)
    else { return }
    try? process.send(.kill)
    try? Files.remove(directory.process)
  }

  /// Makes one clone. Blocks.
  func clone(_ request: CloneRequest, log: FileDescriptor) throws -> ProcessHandle {
    let socket = try UnixSocket.connect(to: directory.socket, kind: .packets)
    try socket.send(
      request.encoded, descriptors: [try FileDescriptor.open("/dev/null"), log, log])
    let poller = try Poller()
    try poller.add(socket.descriptor, token: 0)
    guard try !poller.wait(milliseconds: Self.answerLimit).isEmpty else {
      throw BrokerError(.host, "the process of template \(directory.name) does not answer")
    }
    let message = try socket.receive()
    guard !message.isEnd, let answer = CloneAnswer(parsing: message.bytes) else {
      throw SystemError(code: ECONNRESET, "clone template \(directory.name)")
    }
    switch answer {
    case .started(let identifier, let startTime):
      return try ProcessHandle(identifier: identifier, startTime: startTime)
    case .refused(let problem):
      throw BrokerError(.host, "template \(directory.name) made no clone: \(problem)")
    }
  }
}
