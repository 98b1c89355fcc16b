import Brokering
import Foundation
import Identity
import Synchronization
import Testing

@Suite("The gateway's certificate")
final class CertificateDirectoryTests {
  let directory: CertificateDirectory

  init() {
    let name = "carrel-certificate-\(UInt64.random(in: 0 ... .max))"
    directory = CertificateDirectory(
      path: FileManager.default.temporaryDirectory.appending(path: name).path)
  }

  deinit { try? FileManager.default.removeItem(atPath: directory.path) }

  @Test("the first start issues one, later starts keep it")
  func firstStart() throws {
    let first = try directory.prepare(hostName: "desk.example")
    #expect(first.isNew)
    let second = try directory.prepare(hostName: "desk.example")
    #expect(!second.isNew)
    #expect(second.fingerprint == first.fingerprint)
    let attributes = try FileManager.default.attributesOfItem(atPath: directory.keyPath)
    #expect(attributes[.posixPermissions] as? Int == 0o600)
    #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path).count == 2)
  }

  @Test("OpenSSL agrees on names, purposes and fingerprint")
  func openSSL() throws {
    let outcome = try directory.prepare(hostName: "desk.example")
    let text = try openssl("x509", "-in", directory.certificatePath, "-noout", "-text")
    for part in [
      "DNS:localhost", "IP Address:127.0.0.1", "IP Address:0:0:0:0:0:0:0:1", "DNS:desk.example",
      "TLS Web Server Authentication", "CA:TRUE",
    ] {
      #expect(text.contains(part), "\(part)")
    }
    let print = try openssl(
      "x509", "-in", directory.certificatePath, "-noout", "-fingerprint", "-sha256")
    #expect(print.contains(outcome.fingerprint))
    let verified = try openssl(
      "verify", "-CAfile", directory.certificatePath, "-purpose", "sslserver", "-verify_hostname",
      "localhost", directory.certificatePath)
    #expect(verified.contains(": OK"))
  }

  @Test("a crash between key and certificate is completed with the same key")
  func crash() throws {
    _ = try directory.prepare(hostName: "desk.example")
    let key = try String(contentsOfFile: directory.keyPath, encoding: .utf8)
    try FileManager.default.removeItem(atPath: directory.certificatePath)
    try Data("half a certi".utf8).write(to: URL(filePath: directory.certificatePath + ".new"))
    #expect(try directory.prepare(hostName: "desk.example").isNew)
    #expect(try String(contentsOfFile: directory.keyPath, encoding: .utf8) == key)
    #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path).count == 2)
  }

  @Test("what a crash at any step of issuing leaves is completed by the next start")
  func crashAnywhere() throws {
    let copies = directory.path + ".copies"
    defer { try? FileManager.default.removeItem(atPath: copies) }
    try FileManager.default.createDirectory(atPath: copies, withIntermediateDirectories: true)
    let path = directory.path
    let steps = Steps()
    let watched = CertificateDirectory(
      path: path,
      failpoints: Failpoints { step in
        steps.add(step)
        try? FileManager.default.copyItem(atPath: path, toPath: "\(copies)/\(step)")
      })
    _ = try watched.prepare(hostName: "desk.example")
    let key = try String(contentsOfFile: directory.keyPath, encoding: .utf8)
    #expect(
      steps.all
        == ["key", "certificate"].flatMap { file in
          ["begin", "before", "after"].map { "identity.\(file).\($0)" }
        })
    for step in steps.all {
      let copy = CertificateDirectory(path: "\(copies)/\(step)")
      let hadKey = FileManager.default.fileExists(atPath: copy.keyPath)
      let outcome = try copy.prepare(hostName: "desk.example")
      #expect(outcome.isNew == (step != "identity.certificate.after"))
      if hadKey { #expect(try String(contentsOfFile: copy.keyPath, encoding: .utf8) == key) }
      #expect(
        try FileManager.default.contentsOfDirectory(atPath: copy.path).sorted()
          == ["certificate.pem", "key.pem"], "\(step)")
    }
  }

  private final class Steps: Sendable {
    private let names = Mutex<[String]>([])
    func add(_ name: String) { names.withLock { $0.append(name) } }
    var all: [String] { names.withLock { $0 } }
  }

  @Test("one that is about to end is issued anew")
  func renewal() throws {
    let first = try directory.prepare(
      hostName: "desk.example", now: Date(timeIntervalSinceNow: -800 * 86_400))
    let second = try directory.prepare(hostName: "desk.example")
    #expect(second.isNew)
    #expect(second.fingerprint != first.fingerprint)
  }

  @Test("files that are no certificate, or of another key, are left alone and named")
  func foreign() throws {
    _ = try directory.prepare(hostName: "desk.example")
    let other = CertificateDirectory(path: directory.path + ".other")
    defer { try? FileManager.default.removeItem(atPath: other.path) }
    _ = try other.prepare(hostName: "desk.example")
    try FileManager.default.removeItem(atPath: directory.keyPath)
    try FileManager.default.copyItem(atPath: other.keyPath, toPath: directory.keyPath)
    let mismatch = try #require(throws: IdentityError.self) {
      try directory.prepare(hostName: "desk.example")
    }
    #expect(mismatch.description.contains(directory.certificatePath))

    try Data("nonsense".utf8).write(to: URL(filePath: directory.certificatePath))
    let nonsense = try #require(throws: IdentityError.self) {
      try directory.prepare(hostName: "desk.example")
    }
    #expect(nonsense.kind == .unusableCertificate)
    #expect(try String(contentsOfFile: directory.certificatePath, encoding: .utf8) == "nonsense")
  }

  private func openssl(_ arguments: String...) throws -> String {
    let process = Process()
    let output = Pipe()
    process.executableURL = URL(filePath: "/usr/bin/openssl")
    process.arguments = arguments
    process.standardOutput = output
    try process.run()
    let data = try output.fileHandleForReading.readToEnd() ?? Data()
    process.waitUntilExit()
    #expect(process.terminationStatus == 0)
    return String(decoding: data, as: UTF8.self)
  }
}
