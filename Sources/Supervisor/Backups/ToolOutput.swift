import LinuxSystem

/// All that a program says until it ends.
struct ToolOutput {
  private static let most = 64 << 20

  let exit: ChildProcess.Exit
  let output: [UInt8]
  /// The last of it.
  let errors: [UInt8]

  /// What is started, besides its name and words.
  struct Setting {
    var directory = "/"
    /// Descriptors that it is given.
    var others: [Int32: FileDescriptor] = [:]
    var environment: [String: String] = [:]
  }

  /// Runs a program and follows it. Blocks.
  ///
  /// - Parameters:
  ///   - started: told the process.
  ///   - hear: given its output as it comes.
  ///   - follow: given each line of its output.
  init(
    of program: String, _ arguments: [String], _ setting: Setting,
    started: (ProcessHandle) -> Void, hear: ([UInt8]) -> Void = { _ in },
    follow: ([UInt8]) -> Void
  ) throws {
    let (tool, errors) = try Self.start(program, arguments, setting)
    started(tool.child.handle)
    let said = Guarded<[UInt8]>([])
    let reader = try Thread(name: "tool errors") {
      while let bytes = try? errors.read(upTo: 4096), !bytes.isEmpty {
        said.withLock { $0 = Array(($0 + bytes).suffix(64 << 10)) }
      }
    }
    var whole: [UInt8] = []
    var line: [UInt8] = []
    while let bytes = try? tool.output.read(upTo: 65_536), !bytes.isEmpty {
      if whole.count < Self.most { whole += bytes }
      hear(bytes)
      for byte in bytes {
        if byte == 10 || byte == 13 {
          follow(line)
          line = []
        } else if line.count < 1 << 20 {
          line.append(byte)
        }
      }
    }
    if !line.isEmpty { follow(line) }
    reader.join()
    exit = try tool.child.wait()
    output = whole
    self.errors = said.withLock { $0 }
  }

  /// This process's end for writing errors goes when it returns, so that reading comes to an
  /// end.
  private static func start(
    _ program: String, _ arguments: [String], _ setting: Setting
  ) throws -> (ImageTool, errors: FileDescriptor) {
    let errors = try Pipe()
    let tool = try ImageTool(
      program, arguments, errors: errors.input, directory: setting.directory,
      others: setting.others, environment: setting.environment)
    return (tool, errors.output)
  }
}
