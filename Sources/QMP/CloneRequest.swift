/// What a template's process is asked for, in one packet: a clone, by what makes it one of its
/// own. Values are what the options of the same names of `carrel-vmm run` take.
///
/// ```
/// {"name": "desk-7", "uuid": "…", "disk": ["/…/disk.qcow2,format=qcow2"], "net": ["user"],
///  "channel": ["name=…,socket=…"], "fw-cfg": ["name=…,string=…"], "vsock": "cid=3,socket=…",
///  "serial": "stdio", "nvram": "/…", "display-link": "/…", "control": "/…",
///  "runtime-directory": "/…", "link": "up"}
/// ```
///
/// Only the name has to be there. The packet may carry three descriptors: the clone's
/// standard input, output and error.
package struct CloneRequest: Hashable, Sendable {
  /// Longer packets are refused.
  package static let longest = 32 << 10
  private static let mostValues = 64

  package var name: String
  package var uuid: String?
  package var disks: [String] = []
  package var networks: [String] = []
  package var channels: [String] = []
  package var firmwareFiles: [String] = []
  package var vsock: String?
  package var serial: String?
  package var nvram: String?
  package var displayLink: String?
  package var control: String?
  package var runtimeDirectory: String?
  /// Whether its network cables are plugged in from the start.
  package var isLinkUp = false

  private static let lists: [(name: String, path: WritableKeyPath<Self, [String]> & Sendable)] = [
    ("disk", \.disks), ("net", \.networks), ("channel", \.channels),
    ("fw-cfg", \.firmwareFiles),
  ]
  private static let texts: [(name: String, path: WritableKeyPath<Self, String?> & Sendable)] = [
    ("uuid", \.uuid), ("vsock", \.vsock), ("serial", \.serial), ("nvram", \.nvram),
    ("display-link", \.displayLink), ("control", \.control),
    ("runtime-directory", \.runtimeDirectory),
  ]

  package init(name: String) { self.name = name }

  /// - Parameter bytes: from anybody.
  package init(parsing bytes: [UInt8]) throws(QMPError) {
    guard bytes.count <= Self.longest else {
      throw QMPError(.generic, "The request is longer than \(Self.longest) bytes")
    }
    let json: JSON
    do {
      json = try JSON(parsing: bytes, maximumDepth: 4)
    } catch {
      throw QMPError(.generic, "The request is not JSON: \(error.problem) at byte \(error.offset)")
    }
    guard case .object(let members) = json else {
      throw QMPError(.generic, "The request is not a JSON object")
    }
    guard let name = members["name"]?.text, !name.isEmpty else {
      throw QMPError(.generic, "Parameter 'name' is missing, or no text")
    }
    self.init(name: name)
    for (key, value) in members.sorted(by: { $0.key < $1.key }) where key != "name" {
      try set(key, value)
    }
  }

  private mutating func set(_ key: String, _ value: JSON) throws(QMPError) {
    if let list = Self.lists.first(where: { $0.name == key }) {
      let texts = value.elements?.compactMap(\.text)
      guard let texts, texts.count == value.elements?.count, texts.count <= Self.mostValues else {
        throw QMPError(.generic, "Parameter '\(key)' expects at most \(Self.mostValues) texts")
      }
      self[keyPath: list.path] = texts
    } else if let option = Self.texts.first(where: { $0.name == key }) {
      guard let text = value.text, !text.isEmpty else {
        throw QMPError(.generic, "Parameter '\(key)' expects a text")
      }
      self[keyPath: option.path] = text
    } else if key == "link" {
      guard let text = value.text, ["up", "down"].contains(text) else {
        throw QMPError(.generic, "Parameter 'link' expects up or down")
      }
      isLinkUp = text == "up"
    } else {
      throw QMPError(.generic, "Parameter '\(key)' is unexpected")
    }
  }

  /// As the template takes it.
  package var encoded: [UInt8] {
    var members: [String: JSON] = [
      "name": .string(name), "link": .string(isLinkUp ? "up" : "down"),
    ]
    for (name, path) in Self.lists where !self[keyPath: path].isEmpty {
      members[name] = .array(self[keyPath: path].map { .string($0) })
    }
    for (name, path) in Self.texts { members[name] = self[keyPath: path].map { .string($0) } }
    return JSON.object(members).encoded
  }
}

extension CloneRequest {
  /// Whether any bytes are refused, or are a request that reads the same again. Shared by the
  /// fuzz target and the tests.
  package static func readsAlike(_ bytes: [UInt8]) -> Bool {
    _ = CloneAnswer(parsing: bytes)
    guard let request = try? CloneRequest(parsing: bytes) else { return true }
    // Written otherwise, it may be longer than may be.
    let again = request.encoded
    return again.count > longest || (try? CloneRequest(parsing: again)) == request
  }
}

/// What became of it: the clone's process, or why there is none.
package enum CloneAnswer: Hashable, Sendable {
  /// The guest runs.
  case started(process: Int32, startTime: UInt64)
  case refused(String)

  /// `nil` for what is none.
  package init?(parsing bytes: [UInt8]) {
    guard let json = try? JSON(parsing: bytes, maximumDepth: 4) else { return nil }
    if let result = json["return"], let process = result["pid"]?.whole,
      let startTime = result["startTime"]?.whole
    {
      self = .started(
        process: Int32(clamping: process), startTime: UInt64(clamping: startTime))
    } else if let problem = json["error"]?["desc"]?.text {
      self = .refused(problem)
    } else {
      return nil
    }
  }

  package var encoded: [UInt8] {
    switch self {
    case .started(let process, let startTime):
      JSON.object([
        "return": [
          "pid": .integer(Int64(process)), "startTime": .integer(Int64(clamping: startTime)),
        ]
      ]).encoded
    case .refused(let problem):
      JSON.object(["error": QMPError(.generic, problem).json]).encoded
    }
  }
}
